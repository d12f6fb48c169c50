"use strict";
// Any image of the store by name, class and PSNR.
(() => {
  const island = document.getElementById("row-data");
  if (!island) return;
  const meta = JSON.parse(island.textContent);
  const part = (name) => document.getElementById(`find-${name}`);
  const FAILED = 0, UNMEASURED = 1, FIRST = 8, LOSSLESS = 0xffffff, EMPTY = 0x1000000;
  const AT_ONCE = 50, MOST_COPIED = 100000;

  const unpack = async (packed) => {
    const bytes = SplatCanvas.bytesOf(packed.data);
    if (packed.form === "plain") return bytes;
    const opened = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(opened).arrayBuffer());
  };
  const column = (bytes, place) => {
    const values = new Uint32Array(meta.kept), first = 4 * place * meta.kept;
    for (let plane = 0; plane < 4; plane++) {
      for (let index = 0; index < meta.kept; index++) {
        values[index] |= bytes[first + plane * meta.kept + index] << (8 * plane);
      }
    }
    return values;
  };
  const quality = (code) => ({ [FAILED]: "failed", [UNMEASURED]: "not measured", [LOSSLESS]: "lossless", [EMPTY]: "not encoded" })[code]
    ?? ((code - FIRST) / 100).toFixed(2);

  const start = async () => {
    const [text, bytes] = await Promise.all([unpack(meta.names), unpack(meta.columns)]);
    const names = meta.kept ? new TextDecoder().decode(text).split("\n") : [];
    const row = column(bytes, 0), code = column(bytes, 1), label = column(bytes, 2);
    for (let index = 0, last = -1; index < row.length; index++) row[index] = last += row[index];
    let lowered = null, found = [], shown = 0;
    const className = (one) => (one === 0 ? "no label" : meta.classes[one - 1] ?? String(one - 1));

    const labels = [...new Set(label)].sort((a, b) => a - b);
    for (const one of labels) {
      const option = document.createElement("option");
      option.value = String(one);
      option.textContent = className(one);
      part("class").append(option);
    }

    const wanted = () => {
      const words = part("name").value.trim().toLowerCase();
      const only = part("class").value === "" ? -1 : Number(part("class").value);
      const typed = part("below").value.trim();
      const below = typed === "" || Number.isNaN(Number(typed)) ? null : FIRST + 100 * Number(typed);
      if (words && !lowered) lowered = names.map((name) => name.toLowerCase());
      const result = [];
      for (let index = 0; index < row.length; index++) {
        if (only >= 0 && label[index] !== only) continue;
        if (below !== null && (code[index] < FIRST || code[index] >= LOSSLESS || code[index] >= below)) continue;
        if (words && !lowered[index].includes(words) && String(row[index]) !== words) continue;
        result.push(index);
      }
      const order = part("sort").value;
      if (order === "worst") result.sort((a, b) => code[a] - code[b] || a - b);
      if (order === "best") {
        const rank = (index) => (code[index] === EMPTY ? -1 : code[index]);
        result.sort((a, b) => rank(b) - rank(a) || a - b);
      }
      return result;
    };

    const cell = (line, words, kind) => {
      const made = document.createElement("td");
      made.textContent = words;
      if (kind) made.className = kind;
      line.append(made);
      return made;
    };
    const detail = (line, index) => {
      if (line.nextSibling?.className === "detail") { line.nextSibling.remove(); return; }
      const below = document.createElement("tr"), wide = cell(below, "");
      below.className = "detail";
      wide.colSpan = 4;
      const words = document.createElement("code");
      words.className = "command";
      words.textContent = code[index] === FAILED || code[index] === EMPTY ? "It has no splats to render." : Panels.command(row[index]);
      wide.append(words);
      line.after(below);
    };
    const more = () => {
      const body = part("rows");
      for (const index of found.slice(shown, shown + AT_ONCE)) {
        const line = document.createElement("tr");
        cell(line, quality(code[index]));
        const name = cell(line, "", "wrap"), button = document.createElement("button");
        button.className = "link";
        button.textContent = names[index];
        button.title = Panels.has(row[index]) ? "look closer" : "how to render it";
        button.addEventListener("click", () => Panels.show(row[index]) || detail(line, index));
        name.append(button);
        if (Panels.has(row[index])) name.append(" \u25a3");
        cell(line, className(label[index]), "wrap narrow");
        cell(line, String(row[index]));
        body.append(line);
      }
      shown = Math.min(found.length, shown + AT_ONCE);
      part("more").hidden = shown === found.length;
    };
    const look = () => {
      found = wanted();
      shown = 0;
      part("rows").replaceChildren();
      part("count").textContent = `${found.length.toLocaleString("en")} of ${meta.total.toLocaleString("en")} images`;
      part("text").hidden = true;
      more();
    };
    let pending = 0;
    const soon = () => { clearTimeout(pending); pending = setTimeout(look, 120); };
    for (const name of ["name", "class", "below", "sort"]) part(name).addEventListener("input", soon);
    part("more").addEventListener("click", more);

    const copy = (lines, separator) => {
      const area = part("text");
      area.value = lines.join(separator);
      area.hidden = false;
      area.select();
      const said = (words) => { part("count").textContent = words; };
      const cut = found.length > MOST_COPIED ? ` (the first ${MOST_COPIED.toLocaleString("en")})` : "";
      const done = () => said(`copied ${lines.length.toLocaleString("en")} rows${cut}`);
      const byHand = () => said(`selected below${cut}: press Ctrl+C to copy`);
      if (navigator.clipboard) navigator.clipboard.writeText(area.value).then(done, byHand); else byHand();
    };
    part("copy-rows").addEventListener("click", () => copy(found.slice(0, MOST_COPIED).map((index) => row[index]), ","));
    part("copy-table").addEventListener("click", () => copy(found.slice(0, MOST_COPIED).map(
      (index) => [row[index], names[index], quality(code[index]), className(label[index])].join("\t")), "\n"));
    look();
  };
  start().catch(() => {
    part("count").textContent = "This browser cannot unpack the list of images: it takes one of 2023 or newer "
      + "(with DecompressionStream). All else on the page works.";
  });
})();
