// Charts as inline SVG. Each takes plain values and returns an element with a label that says what it shows.

const SVG = "http://www.w3.org/2000/svg";

function s(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function canvas(width, height, label) {
  return s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
}

// The next round number above: 1, 2 or 5 times a power of ten.
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= value * 0.999);
}

// Rules at zero, half and full height, with the values in front.
function rules(svg, box, most, format) {
  for (const share of [0, 0.5, 1]) {
    const y = box.bottom - share * (box.bottom - box.top);
    svg.append(
      s("line", { class: "rule", x1: box.left, x2: box.right, y1: y, y2: y }),
      s("text", { x: box.left - 6, y: y + 4, "text-anchor": "end" }, format(most * share)),
    );
  }
}

// Bars of stacked parts. `bars`: [{ name, title, parts: [number] }]; `classes`: one for each part.
export function stacked({ bars, classes, label, format, width = 720, height = 210, most: wanted }) {
  const svg = canvas(width, height, label);
  const box = { left: 50, right: width - 2, top: 8, bottom: height - 22 };
  const sums = bars.map((bar) => bar.parts.reduce((sum, part) => sum + Math.max(part, 0), 0));
  const most = wanted ?? roundUp(Math.max(...sums, 0));
  rules(svg, box, most, format);
  const slot = (box.right - box.left) / Math.max(bars.length, 1);
  const thick = Math.max(Math.min(slot * 0.78, 34), 1.5);
  bars.forEach((bar, i) => {
    const x = box.left + slot * i + (slot - thick) / 2;
    let y = box.bottom;
    const group = s("g", {}, s("title", {}, bar.title));
    bar.parts.forEach((part, n) => {
      const tall = (Math.max(part, 0) / most) * (box.bottom - box.top);
      if (tall <= 0) return;
      y -= tall;
      group.append(s("rect", { class: classes[n], x, y, width: thick, height: tall, rx: Math.min(2, tall / 2) }));
    });
    svg.append(group);
  });
  const every = Math.max(Math.ceil(bars.length / Math.floor((box.right - box.left) / 80)), 1);
  bars.forEach((bar, i) => {
    // The last one is named, and others at even distances before it.
    if ((bars.length - 1 - i) % every !== 0) return;
    const middle = box.left + slot * (i + 0.5);
    const edge = box.right - middle < 24;
    svg.append(s("text", { x: edge ? box.right : middle, y: height - 5, "text-anchor": edge ? "end" : "middle" }, bar.name));
  });
  return svg;
}

// Spans on a logarithmic axis. `rows`: [{ name, count, p50, p90, p99 }], in seconds.
export function spans({ rows, label, format, width = 360 }) {
  const step = 46;
  const height = rows.length * step + 24;
  const svg = canvas(width, height, label);
  const box = { left: 8, right: width - 8 };
  const all = rows.flatMap((row) => [row.p50, row.p99]).filter((value) => value > 0);
  const low = Math.floor(Math.log10(Math.min(...all)));
  const high = Math.max(Math.ceil(Math.log10(Math.max(...all))), low + 1);
  const place = (value) => {
    const share = (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low);
    return box.left + share * (box.right - box.left);
  };
  const skip = Math.ceil((high - low) / 5);
  for (let power = low; power <= high; power += 1) {
    const x = place(10 ** power);
    svg.append(s("line", { class: "rule", x1: x, x2: x, y1: 0, y2: height - 18 }));
    if ((power - low) % skip !== 0) continue;
    const anchor = power === low ? "start" : power === high ? "end" : "middle";
    svg.append(s("text", { x, y: height - 4, "text-anchor": anchor }, format(10 ** power)));
  }
  rows.forEach((row, i) => {
    const y = i * step + 14;
    svg.append(
      s("text", { class: "strong", x: box.left, y }, row.name),
      s("text", { x: box.right, y, "text-anchor": "end" }, `${format(row.p50)} · ${format(row.p90)} · ${format(row.p99)}`),
      s("line", { class: "span", x1: place(row.p50), x2: place(row.p99), y1: y + 14, y2: y + 14 }),
      s("circle", { class: "mark", cx: place(row.p50), cy: y + 14, r: 5 }, s("title", {}, `median ${format(row.p50)}`)),
    );
  });
  return svg;
}

// A line through points, one of which is chosen. `points`: [{ y, name }]; no y: no point.
export function curve({ points, chosen, label, format, width = 460, height = 120 }) {
  const svg = canvas(width, height, label);
  const box = { left: 46, right: width - 12, top: 8, bottom: height - 20 };
  const known = points.map((point) => point.y).filter((y) => y != null);
  const most = roundUp(Math.max(...known, 0));
  rules(svg, box, most, format);
  const x = (i) => box.left + 8 + (i / Math.max(points.length - 1, 1)) * (box.right - box.left - 8);
  const y = (value) => box.bottom - (value / most) * (box.bottom - box.top);
  const there = points.map((point, i) => ({ ...point, i })).filter((point) => point.y != null);
  svg.append(s("polyline", { class: "curve", points: there.map((point) => `${x(point.i)},${y(point.y)}`).join(" ") }));
  for (const point of there) {
    const now = point.i === chosen;
    svg.append(s("circle", { class: now ? "dot now" : "dot", cx: x(point.i), cy: y(point.y), r: now ? 6 : 3.5 }));
  }
  const every = Math.ceil(points.length / 6);
  points.forEach((point, i) => {
    if (i % every !== 0) return;
    const edge = box.right - x(i) < 16;
    svg.append(s("text", { x: edge ? width : x(i), y: height - 3, "text-anchor": edge ? "end" : "middle" }, point.name));
  });
  return svg;
}
