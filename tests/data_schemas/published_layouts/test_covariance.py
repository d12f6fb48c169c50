import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.published_layouts.rotated_hdf5 import from_principal, keep_invertible, to_principal

deviations = st.floats(0, 1e4, allow_nan=False, width=32)
angles = st.floats(-10, 10, allow_nan=False)
correlations = st.floats(-1, 1, allow_nan=False)


def matrix(sigma_x, sigma_y, rho):
    return np.array([[sigma_x**2, rho * sigma_x * sigma_y], [rho * sigma_x * sigma_y, sigma_y**2]])


def one(*values):
    return [np.array([value], float) for value in values]


@pytest.mark.slow
@given(deviations, deviations, angles)
def test_covariance_is_the_turned_diagonal(major, minor, angle):
    sigma_x, sigma_y, rho = (float(value[0]) for value in from_principal(*one(major, minor, angle)))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wanted = turn @ np.diag([major**2, minor**2]) @ turn.T
    assert -1 <= rho <= 1
    np.testing.assert_allclose(matrix(sigma_x, sigma_y, rho), wanted, atol=1e-9 * max(major, minor, 1e-30) ** 2)


@given(deviations, deviations, correlations)
def test_principal_form_gives_the_covariance_back(sigma_x, sigma_y, rho):
    major, minor, angle = to_principal(*one(sigma_x, sigma_y, rho))
    assert np.all(np.isfinite([major, minor, angle]))
    assert major >= minor * (1 - 1e-12)
    assert minor >= 0
    assert 0 <= angle < np.pi
    again = from_principal(major, minor, angle)
    np.testing.assert_allclose(
        matrix(*(float(value[0]) for value in again)),
        matrix(sigma_x, sigma_y, rho),
        atol=1e-9 * max(sigma_x, sigma_y, 1e-30) ** 2,
    )


@given(deviations, deviations, angles)
def test_twins_have_one_covariance(major, minor, angle):
    first = from_principal(*one(major, minor, angle))
    for twin in (one(minor, major, angle + np.pi / 2), one(major, minor, angle + np.pi)):
        other = from_principal(*twin)
        np.testing.assert_allclose(other[0], first[0], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(other[1], first[1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("values", [(0, 0, 0.3), (0, 2, 1.0), (1, 1, 0.7), (1e-30, 1e30, 1.0)])
def test_degenerate_principal_forms_are_finite(values):
    sigma_x, sigma_y, rho = from_principal(*one(*values))
    assert np.all(np.isfinite([sigma_x, sigma_y, rho]))


@pytest.mark.parametrize("rho", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("sigma", [0.0, 1e-300, 1.0])
def test_degenerate_covariances_have_finite_principal_forms(sigma, rho):
    assert np.all(np.isfinite(to_principal(*one(sigma, sigma, rho))))


def test_an_angle_just_below_zero_does_not_become_pi():
    _, _, angle = to_principal(*one(1.0, 0.5, -1e-17))
    assert angle[0] < np.pi


def test_keep_invertible_moves_only_degenerate_values():
    sigma, rho = keep_invertible(np.array([0.0, 0.1]), np.array([1.0, -0.5]))
    assert sigma[0] > 0
    assert abs(rho[0]) < 1
    assert (sigma[1], rho[1]) == (0.1, -0.5)
