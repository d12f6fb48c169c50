"use strict";
// Splats on a canvas at any zoom: the codec's own sum, pixel by pixel. The report and the evaluation share it.
const SplatCanvas = (() => {
  const reach = 7.75;  // standard deviations; beyond it a weight is below 1e-13, as in the decoder

  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  // IEEE 754 binary16, which not every browser has an array type for.
  const half = (bits) => {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -14 * (fraction / 1024);
  };

  /** meta: steps, gaussians, channels, width, height, mode, floor, data; dtype "float16" or none for float32. */
  const open = (meta) => {
    const bytes = bytesOf(meta.data);
    const numbers = meta.dtype === "float16"
      ? Float32Array.from(new Uint16Array(bytes.buffer), half) : new Float32Array(bytes.buffer);
    return { ...meta, columns: 6 + meta.channels, numbers };
  };

  const whole = (scale) => ({ x: 0, y: 0, scale });

  /** One splat in pixels of the canvas; view.x, view.y is the image point (in its pixels) at the canvas' corner. */
  const splat = (data, step, index, view) => {
    const at = (step * data.gaussians + index) * data.columns;
    const [sigmaX, sigmaY, rho, x, y, alpha] = data.numbers.subarray(at, at + 6);
    return {
      x: (((x + 1) / 2) * data.width - view.x) * view.scale, y: (((y + 1) / 2) * data.height - view.y) * view.scale,
      sx: (Math.max(sigmaX, 1e-6) * data.width * view.scale) / 2,
      sy: (Math.max(sigmaY, 1e-6) * data.height * view.scale) / 2,
      rho: Math.min(Math.max(rho, -0.999999), 0.999999), alpha,
      colour: data.numbers.subarray(at + 6, at + data.columns),
    };
  };

  const squared = (one, x, y) => {
    const u = (x - one.x) / one.sx, v = (y - one.y) / one.sy;
    return (u * u - 2 * one.rho * u * v + v * v) / (1 - one.rho * one.rho);
  };

  /** The decoded image within the view, as ImageData of width x height; transparent beside the image. */
  const image = (context, data, step, view, width, height) => {
    const first = Math.max(0, Math.floor(-view.x * view.scale)), top0 = Math.max(0, Math.floor(-view.y * view.scale));
    const last = Math.min(width, Math.ceil((data.width - view.x) * view.scale));
    const bottom0 = Math.min(height, Math.ceil((data.height - view.y) * view.scale));
    const colours = new Float32Array(width * height * data.channels);
    const extra = new Float32Array(width * height).fill(data.mode === "over" ? 1 : 0);
    for (let index = 0; index < data.gaussians; index++) {
      const one = splat(data, step, index, view);
      const left = Math.max(first, Math.floor(one.x - reach * one.sx));
      const right = Math.min(last, Math.ceil(one.x + reach * one.sx));
      const top = Math.max(top0, Math.floor(one.y - reach * one.sy));
      const bottom = Math.min(bottom0, Math.ceil(one.y + reach * one.sy));
      const shrink = -0.5 / (1 - one.rho * one.rho);
      for (let row = top; row < bottom; row++) {
        const v = (row + 0.5 - one.y) / one.sy;
        for (let column = left; column < right; column++) {
          const u = (column + 0.5 - one.x) / one.sx;
          let weight = one.alpha * Math.exp(shrink * (u * u - 2 * one.rho * u * v + v * v));
          const pixel = row * width + column;
          if (data.mode === "over") {
            const through = extra[pixel];
            extra[pixel] = through * (1 - weight);
            weight *= through;
          } else {
            extra[pixel] += weight;
          }
          for (let channel = 0; channel < data.channels; channel++) {
            colours[pixel * data.channels + channel] += weight * one.colour[channel];
          }
        }
      }
    }
    const result = context.createImageData(width, height);
    for (let row = top0; row < bottom0; row++) {
      for (let column = first; column < last; column++) {
        const pixel = row * width + column;
        const total = data.mode === "normalised" ? data.floor + extra[pixel] : 1;
        for (let channel = 0; channel < 3; channel++) {
          const value = colours[pixel * data.channels + (data.channels === 3 ? channel : 0)] / total;
          result.data[4 * pixel + channel] = Math.round(255 * Math.min(Math.max(value, 0), 1));
        }
        result.data[4 * pixel + 3] = 255;
      }
    }
    return result;
  };

  /** One-sigma ellipses; the one of index ``chosen`` stands out. */
  const outline = (context, data, step, view, chosen = -1) => {
    for (let index = 0; index < data.gaussians; index++) {
      const one = splat(data, step, index, view);
      const root = Math.sqrt(1 - one.rho * one.rho);
      context.beginPath();
      for (let part = 0; part <= 48; part++) {
        const angle = (2 * Math.PI * part) / 48, across = Math.cos(angle), down = Math.sin(angle);
        context.lineTo(one.x + one.sx * across, one.y + one.sy * (one.rho * across + root * down));
      }
      context.lineWidth = index === chosen ? 2.6 : 1.2;
      context.strokeStyle = index === chosen ? "rgb(255, 190, 60)" : "rgba(90, 190, 255, 0.75)";
      context.stroke();
    }
  };

  /** Index of the splat that weighs most at a point of the canvas, within three standard deviations; -1 for none. */
  const nearest = (data, step, view, x, y) => {
    let best = -1, most = 0;
    for (let index = 0; index < data.gaussians; index++) {
      const one = splat(data, step, index, view), distance = squared(one, x, y);
      const weight = one.alpha * Math.exp(-distance / 2);
      if (distance <= 9 && weight > most) [best, most] = [index, weight];
    }
    return best;
  };

  /** The numbers of one splat in words, as the store holds them. */
  const words = (data, step, index) => {
    const at = (step * data.gaussians + index) * data.columns;
    const names = ["sigma_x", "sigma_y", "rho", "x", "y", "alpha", ...(data.channels === 3 ? ["r", "g", "b"] : ["grey"])];
    const values = data.numbers.subarray(at, at + data.columns);
    return `splat ${index}: ` + names.map((name, place) => `${name} ${Number(values[place].toPrecision(4))}`).join(", ");
  };

  return { open, whole, image, outline, nearest, words, bytesOf };
})();
if (typeof module !== "undefined") module.exports = SplatCanvas;
