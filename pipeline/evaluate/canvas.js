"use strict";
(() => {
  const canvas = document.getElementById("splats");
  if (!canvas) return;
  const meta = JSON.parse(document.getElementById("splat-data").textContent);
  const bytes = Uint8Array.from(atob(meta.data), (letter) => letter.charCodeAt(0));
  const numbers = new Float32Array(bytes.buffer);
  const columns = 6 + meta.channels;
  const scale = Math.max(1, Math.round(320 / Math.max(meta.width, meta.height)));
  const width = meta.width * scale, height = meta.height * scale;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const slider = document.getElementById("step");
  const ellipses = document.getElementById("ellipses");
  const words = document.getElementById("step-words");
  slider.max = String(meta.steps - 1);
  slider.value = slider.max;

  const reach = 7.75;  // standard deviations; beyond it a weight is below 1e-13, as in the decoder

  const splat = (step, index) => {
    const at = (step * meta.gaussians + index) * columns;
    const [sigmaX, sigmaY, rho, x, y, alpha] = numbers.subarray(at, at + 6);
    return {
      x: ((x + 1) / 2) * width, y: ((y + 1) / 2) * height,
      sx: (Math.max(sigmaX, 1e-6) * width) / 2, sy: (Math.max(sigmaY, 1e-6) * height) / 2,
      rho: Math.min(Math.max(rho, -0.999999), 0.999999), alpha,
      colour: numbers.subarray(at + 6, at + columns),
    };
  };

  // The codec's own sum, pixel by pixel, at several times the resolution of the data.
  const image = (step) => {
    const colours = new Float32Array(width * height * meta.channels);
    const extra = new Float32Array(width * height).fill(meta.mode === "over" ? 1 : 0);
    for (let index = 0; index < meta.gaussians; index++) {
      const one = splat(step, index);
      const left = Math.max(0, Math.floor(one.x - reach * one.sx)), right = Math.min(width, Math.ceil(one.x + reach * one.sx));
      const top = Math.max(0, Math.floor(one.y - reach * one.sy)), bottom = Math.min(height, Math.ceil(one.y + reach * one.sy));
      const shrink = -0.5 / (1 - one.rho * one.rho);
      for (let row = top; row < bottom; row++) {
        const v = (row + 0.5 - one.y) / one.sy;
        for (let column = left; column < right; column++) {
          const u = (column + 0.5 - one.x) / one.sx;
          let weight = one.alpha * Math.exp(shrink * (u * u - 2 * one.rho * u * v + v * v));
          const pixel = row * width + column;
          if (meta.mode === "over") {
            const through = extra[pixel];
            extra[pixel] = through * (1 - weight);
            weight *= through;
          } else {
            extra[pixel] += weight;
          }
          for (let channel = 0; channel < meta.channels; channel++) {
            colours[pixel * meta.channels + channel] += weight * one.colour[channel];
          }
        }
      }
    }
    const result = context.createImageData(width, height);
    for (let pixel = 0; pixel < width * height; pixel++) {
      const whole = meta.mode === "normalised" ? meta.floor + extra[pixel] : 1;
      for (let channel = 0; channel < 3; channel++) {
        const value = colours[pixel * meta.channels + (meta.channels === 3 ? channel : 0)] / whole;
        result.data[4 * pixel + channel] = Math.round(255 * Math.min(Math.max(value, 0), 1));
      }
      result.data[4 * pixel + 3] = 255;
    }
    return result;
  };

  const outline = (step) => {
    context.lineWidth = 1.2;
    for (let index = 0; index < meta.gaussians; index++) {
      const one = splat(step, index);
      const root = Math.sqrt(1 - one.rho * one.rho);
      context.beginPath();
      for (let part = 0; part <= 48; part++) {
        const angle = (2 * Math.PI * part) / 48, across = Math.cos(angle), down = Math.sin(angle);
        context.lineTo(one.x + one.sx * across, one.y + one.sy * (one.rho * across + root * down));
      }
      context.strokeStyle = "rgba(90, 190, 255, 0.75)";
      context.stroke();
    }
  };

  const draw = () => {
    const step = Number(slider.value);
    context.putImageData(image(step), 0, 0);
    if (ellipses.checked) outline(step);
    words.textContent = `step ${step} of ${meta.steps - 1}, time ${meta.times[step]}`;
  };
  slider.addEventListener("input", draw);
  ellipses.addEventListener("change", draw);
  draw();
})();
