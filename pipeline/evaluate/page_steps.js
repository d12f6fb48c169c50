"use strict";
// The splats of one generated image, step by step.
(() => {
  const canvas = document.getElementById("splats");
  if (!canvas) return;
  const data = SplatCanvas.open(JSON.parse(document.getElementById("splat-data").textContent));
  const scale = Math.max(1, Math.round(320 / Math.max(data.width, data.height)));
  canvas.width = data.width * scale;
  canvas.height = data.height * scale;
  const context = canvas.getContext("2d");
  const view = SplatCanvas.whole(scale);
  const slider = document.getElementById("step");
  const ellipses = document.getElementById("ellipses");
  const words = document.getElementById("step-words");
  const numbers = document.getElementById("splat-words");
  slider.max = String(data.steps - 1);
  slider.value = slider.max;

  const draw = () => {
    const step = Number(slider.value);
    context.putImageData(SplatCanvas.image(context, data, step, view, canvas.width, canvas.height), 0, 0);
    if (ellipses.checked) SplatCanvas.outline(context, data, step, view);
    words.textContent = `step ${step} of ${data.steps - 1}, time ${data.times[step]}`;
  };
  const point = (event) => {
    const box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width;
    const step = Number(slider.value);
    const index = SplatCanvas.nearest(data, step, view, (event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio);
    numbers.textContent = index < 0 ? "no splat here" : SplatCanvas.words(data, step, index);
  };
  slider.addEventListener("input", draw);
  ellipses.addEventListener("change", draw);
  canvas.addEventListener("pointermove", point);
  draw();
})();
