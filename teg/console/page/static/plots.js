// Curves and sparklines as SVG; null is a gap. Everything is made with createElementNS: text never becomes markup.

const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function path(values, bins, highest, lowest, width, height) {
  const range = highest - lowest || 1;
  const first = bins - values.length;
  let text = "", pen = false;
  values.forEach((value, index) => {
    if (value === null) { pen = false; return; }
    const x = ((first + index) / Math.max(1, bins - 1)) * width;
    const y = height - 2 - ((value - lowest) / range) * (height - 4);
    text += `${pen ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}${pen ? "" : "h.1"}`;
    pen = true;
  });
  return text;
}

export function known(values) { return values.filter((value) => value !== null); }

export function curve(series, bins, label) {
  const [width, height] = [720, 88];
  const highest = Math.max(0, ...series.flatMap(known));
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label });
  for (const part of [0, 0.5, 1]) {
    const y = 2 + part * (height - 4);
    svg.append(element("path", { class: "grid", d: `M0 ${y}H${width}` }));
  }
  series.forEach((values, index) => {
    svg.append(element("path", { class: index ? "second" : "first", d: path(values, bins, highest, 0, width, height) }));
  });
  return svg;
}

export function sparkline(points) {
  const svg = element("svg", { class: "spark", viewBox: "0 0 112 22", preserveAspectRatio: "none", "aria-hidden": "true" });
  if (points.length > 1) {
    const d = path(points, points.length, Math.max(...points), Math.min(...points), 112, 22);
    svg.append(element("path", { class: "first", d }));
  }
  return svg;
}
