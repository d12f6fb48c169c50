"use strict";
// Panels that are made when they are scrolled to, and the viewer: source beside splats at any zoom.
const Panels = (() => {
  const island = document.getElementById("panel-data");
  const all = island ? JSON.parse(island.textContent) : { more: [], splats: {} };
  const byRow = new Map(all.more.map((panel) => [panel.row, panel]));
  const element = (tag, words, kind) => {
    const made = document.createElement(tag);
    if (words !== undefined) made.textContent = words;
    if (kind) made.className = kind;
    return made;
  };
  const command = (row) => `${all.render} ${row} --size 512 --out row-${row}.png`;

  // The cards of the page have their pictures already; only their splats are here.
  for (const card of document.querySelectorAll(".card[data-row]")) {
    const row = Number(card.dataset.row);
    if (!(row in all.splats)) continue;
    byRow.set(row, {
      row, name: card.querySelector(".name").textContent, facts: card.querySelector(".facts").textContent,
      splats: all.splats[row], source: card.querySelector("img[data-kind=source]")?.src,
    });
    enliven(card, row);
  }

  function enliven(card, row) {
    card.tabIndex = 0;
    card.classList.add("live");
    card.title = "look closer";
    const look = (event) => { if (!event.target.closest("code")) show(row); };
    card.addEventListener("click", look);
    card.addEventListener("keydown", (event) => { if (event.key === "Enter") look(event); });
  }

  const factsOf = (panel) => panel.facts || `${panel.psnr} · SSIM ${panel.ssim} · ${panel.label} · row ${panel.row}`;

  const fill = (card, panel) => {
    const strip = element("div", undefined, "strip");
    for (const kind of ["source", "decoded"]) {
      if (!panel[kind]) continue;
      const figure = element("figure"), picture = element("img", undefined, "pixels");
      picture.src = panel[kind];
      picture.alt = `${kind} of row ${panel.row}`;
      picture.width = 168;
      figure.append(picture, element("figcaption", kind));
      strip.append(figure);
    }
    card.append(strip, element("div", panel.name, "name"), element("div", factsOf(panel), "facts"));
    card.append(element("code", command(panel.row), "command"));
    enliven(card, panel.row);
  };

  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      fill(entry.target, byRow.get(Number(entry.target.dataset.row)));
    }
  }, { rootMargin: "300px" });

  const place = document.getElementById("more-panels");
  let group = "", cards = null;
  for (const panel of all.more) {
    if (panel.group !== group) {
      group = panel.group;
      cards = element("div", undefined, "cards small");
      place.append(element("h3", group), cards);
    }
    const card = element("article", undefined, "card waiting");
    card.dataset.row = String(panel.row);
    cards.append(card);
    watcher.observe(card);
  }

  // The viewer.
  const viewer = document.getElementById("viewer");
  let data = null, view = null, source = null, chosen = -1, drag = null, pending = 0, least = 1;
  const part = (name) => document.getElementById(`viewer-${name}`);

  const draw = (grain) => {
    const canvas = part("splats"), context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (grain > 1) {  // coarse while it moves, exact when it rests
      const small = document.createElement("canvas");
      small.width = Math.ceil(canvas.width / grain);
      small.height = Math.ceil(canvas.height / grain);
      const brush = small.getContext("2d");
      const seen = { ...view, scale: view.scale / grain };
      brush.putImageData(SplatCanvas.image(brush, data, 0, seen, small.width, small.height), 0, 0);
      context.drawImage(small, 0, 0, small.width * grain, small.height * grain);
    } else {
      context.putImageData(SplatCanvas.image(context, data, 0, view, canvas.width, canvas.height), 0, 0);
    }
    if (part("ellipses").checked) SplatCanvas.outline(context, data, 0, view, chosen);
    const beside = part("source"), brush = beside.getContext("2d");
    brush.clearRect(0, 0, beside.width, beside.height);
    brush.imageSmoothingEnabled = false;
    if (source?.complete && source.naturalWidth) {
      brush.drawImage(source, -view.x * view.scale, -view.y * view.scale, data.width * view.scale, data.height * view.scale);
    }
    part("zoom").textContent = `${(view.scale / least).toFixed(1)}×`;
  };
  const move = () => {
    draw(4);
    clearTimeout(pending);
    pending = setTimeout(() => draw(1), 120);
  };
  const zoom = (factor, x, y) => {
    const scale = Math.min(Math.max(view.scale * factor, least), least * 64);
    view = { x: view.x + x / view.scale - x / scale, y: view.y + y / view.scale - y / scale, scale };
    if (scale === least) view = SplatCanvas.whole(scale);
    move();
  };
  const at = (event) => {
    const box = event.target.getBoundingClientRect(), ratio = event.target.width / box.width;
    return [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
  };

  function show(row) {
    const panel = byRow.get(row);
    if (!panel) return false;
    data = SplatCanvas.open({ ...all.canvas, data: panel.splats });
    chosen = -1;
    part("name").textContent = panel.name;
    part("facts").textContent = factsOf(panel);
    part("command").textContent = command(row);
    part("words").textContent = "Point at a splat for its numbers; drag to move, turn the wheel to zoom.";
    if (!viewer.open) viewer.showModal();
    part("beside").hidden = !panel.source;
    const wide = Math.max(120, Math.min(480, Math.floor(part("splats").parentElement.clientWidth)));
    least = wide / Math.max(data.width, data.height);
    for (const canvas of [part("splats"), part("source")]) {
      canvas.width = Math.max(1, Math.round(data.width * least));
      canvas.height = Math.max(1, Math.round(data.height * least));
    }
    view = SplatCanvas.whole(least);
    source = panel.source ? new Image() : null;
    if (source) {
      source.onload = () => draw(1);
      source.src = panel.source;
    }
    draw(1);
    return true;
  }

  if (viewer) {
    for (const name of ["splats", "source"]) {
      const canvas = part(name);
      canvas.addEventListener("wheel", (event) => {
        event.preventDefault();
        zoom(event.deltaY < 0 ? 1.25 : 0.8, ...at(event));
      }, { passive: false });
      canvas.addEventListener("pointerdown", (event) => {
        drag = at(event);
        canvas.setPointerCapture(event.pointerId);
      });
      canvas.addEventListener("pointerup", () => { drag = null; });
      canvas.addEventListener("pointercancel", () => { drag = null; });
      canvas.addEventListener("pointermove", (event) => {
        const [x, y] = at(event);
        if (drag) {
          view = { ...view, x: view.x - (x - drag[0]) / view.scale, y: view.y - (y - drag[1]) / view.scale };
          drag = [x, y];
          move();
          return;
        }
        const found = SplatCanvas.nearest(data, 0, view, x, y);
        part("words").textContent = found < 0 ? "no splat here" : SplatCanvas.words(data, 0, found);
        if (found !== chosen) {
          chosen = found;
          if (part("ellipses").checked) move();
        }
      });
    }
    const middle = (factor) => zoom(factor, part("splats").width / 2, part("splats").height / 2);
    part("in").addEventListener("click", () => middle(1.6));
    part("out").addEventListener("click", () => middle(1 / 1.6));
    part("ellipses").addEventListener("change", () => draw(1));
    part("close").addEventListener("click", () => viewer.close());
  }
  return { show, has: (row) => byRow.has(row), command };
})();
