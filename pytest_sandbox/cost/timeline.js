"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const root = document.documentElement;
  root.classList.add("scripted");

  // Elements are made from text, never from markup: what is in the data was written by tests.
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function seconds(ms) {
    if (ms >= 60000) return `${Math.floor(ms / 60000)} min ${((ms % 60000) / 1000).toFixed(1)} s`;
    if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
    return `${ms >= 10 ? ms.toFixed(0) : ms.toFixed(1)} ms`;
  }

  // Items of the timeline: tests, spans and containers, each in a lane of its worker.

  const [NAME, WORKER, OUTCOME, START, SETUP, CALL, TEARDOWN, USES, ANCHOR] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
  const bad = (outcome) => outcome === "failed" || outcome === "error";
  const tests = data.tests.map((row, index) => ({
    type: "test", index, name: row[NAME], worker: row[WORKER], kind: data.outcomes[row[OUTCOME]],
    start: row[START], stop: row[START] + row[SETUP] + row[CALL] + row[TEARDOWN], row,
  }));
  const spans = data.spans.map(([phase, name, worker, start, stop, test]) => ({
    type: "span", name, worker, kind: data.phases[phase], start, stop, test,
  }));
  const lives = data.lives.map(([name, worker, start, stop, state, image, test, anchor]) => ({
    type: "container", name, worker, kind: "container", start, stop, state, image, test, anchor,
  }));

  // Rows that overlap nowhere; what does not fit into `most` rows is left out of the drawing.
  function packed(items, most) {
    const rows = [];
    for (const item of [...items].sort((a, b) => a.start - b.start || b.stop - a.stop)) {
      let row = rows.find((each) => each[each.length - 1].stop <= item.start);
      if (!row && rows.length < most) rows.push((row = []));
      if (row) row.push(item);
    }
    return rows;
  }

  const HEIGHT = { test: 22, span: 14, container: 12 };
  const GROUPS = { span: "waiting", container: "containers" };
  const lanes = [];
  const AXIS = 24, LEFT = Math.min(180, 16 + 7.2 * Math.max(10, ...data.workers.map((name) => name.length)));
  let height = AXIS;
  data.workers.forEach((name, worker) => {
    const mine = (items) => items.filter((item) => item.worker === worker);
    const most = Math.max(2, Math.min(8, Math.floor(24 / data.workers.length)));
    height += 8;
    const top = height;
    for (const [items, rows] of [[tests, 2], [spans, 5], [lives, most]]) {
      packed(mine(items), rows).forEach((row, index) => {
        const { type } = row[0], tall = HEIGHT[type], first = height === top;
        const label = first ? name : index ? "" : GROUPS[type];
        lanes.push({ items: row, top: height, height: tall, label, first });
        height += tall + 2;
      });
      height += 3;
    }
    height += 4;
  });
  height = Math.max(height, AXIS + 40);

  // Drawing

  const canvas = $("canvas"), plot = $("plot"), pen = canvas.getContext("2d");
  const view = { from: 0, to: data.length };
  let selected = null, hovered = null, colours = {}, width = 0, pending = false;

  function readColours() {
    const probe = make("i");
    document.body.append(probe);
    const read = (name) => {
      probe.style.color = `var(--${name})`;
      return getComputedStyle(probe).color;
    };
    const names = [...data.outcomes, ...data.phases, "setup", "container", "ink", "soft", "line", "card", "fill", "focus"];
    colours = Object.fromEntries(names.map((name) => [name, read(name)]));
    probe.remove();
  }

  const x = (ms) => LEFT + ((ms - view.from) / (view.to - view.from)) * (width - LEFT - 8);
  const ms = (px) => view.from + ((px - LEFT) / (width - LEFT - 8)) * (view.to - view.from);

  function redraw() {
    if (pending) return;
    pending = true;
    requestAnimationFrame(() => {
      pending = false;
      draw();
    });
  }

  function draw() {
    width = plot.clientWidth;
    const scale = window.devicePixelRatio || 1;
    canvas.width = width * scale;
    canvas.height = height * scale;
    canvas.style.height = `${height}px`;
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.fillStyle = colours.card;
    pen.fillRect(0, 0, width, height);
    drawAxis();
    lanes.forEach(drawLane);
    for (const item of [hovered, selected]) if (item) outline(item);
  }

  function tick() {
    const rough = ((view.to - view.from) / Math.max(2, (width - LEFT) / 90));
    const power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map((n) => n * power).find((step) => step >= rough);
  }

  function drawAxis() {
    const step = tick(), digits = Math.max(0, -Math.floor(Math.log10(step / 1000)));
    pen.font = "11px system-ui, 'DejaVu Sans', sans-serif";
    pen.textBaseline = "middle";
    for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
      const left = Math.round(x(at)) + 0.5;
      pen.fillStyle = colours.line;
      pen.fillRect(left, AXIS - 4, 1, height);
      pen.fillStyle = colours.soft;
      const text = `${(at / 1000).toFixed(digits)} s`;
      if (left + 3 + pen.measureText(text).width < width) pen.fillText(text, left + 3, AXIS / 2);
    }
  }

  function drawLane(lane, index) {
    if (lane.first && index) {
      pen.fillStyle = colours.line;
      pen.fillRect(0, lane.top - 9, width, 1);
    }
    if (lane.label) {
      pen.fillStyle = lane.first ? colours.ink : colours.soft;
      pen.font = `${lane.first ? "600 12px" : "11px"} system-ui, 'DejaVu Sans', sans-serif`;
      pen.fillText(lane.label, 10, lane.top + lane.height / 2, LEFT - 16);
    }
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, lane.top, width - LEFT, lane.height);
    pen.clip();
    // Failures last, so that no neighbour of the same pixel covers them.
    for (const last of [false, true])
      for (const item of lane.items)
        if (bad(item.kind) === last && item.stop >= view.from && item.start <= view.to) bar(lane, item);
    pen.restore();
  }

  function bar(lane, item) {
    const left = x(item.start), wide = Math.max(x(item.stop) - left, bad(item.kind) ? 3 : 1);
    const gap = wide > 4 ? 1 : 0;
    pen.fillStyle = colours[item.kind];
    if (item.type === "test" && wide > 6) {
      // Setup and teardown are paler than the test itself.
      pen.globalAlpha = 0.45;
      pen.fillRect(left, lane.top, wide - gap, lane.height);
      pen.globalAlpha = 1;
      const begin = x(item.start + item.row[SETUP]), end = x(item.start + item.row[SETUP] + item.row[CALL]);
      pen.fillRect(begin, lane.top, Math.max(1, Math.min(end, left + wide - gap) - begin), lane.height);
    } else {
      if (item.type === "container") pen.globalAlpha = 0.75;
      pen.fillRect(left, lane.top, wide - gap, lane.height);
      pen.globalAlpha = 1;
    }
    const shown = Math.max(left, LEFT) + 4, room = left + wide - shown - 4;
    if (room > 30) label(item, shown, lane, room);
  }

  function label(item, left, lane, room) {
    const size = item.type === "test" ? 11 : 10;
    const pale = item.type === "container" || item.kind === "setup" || (item.type === "test" && left < x(item.start + item.row[SETUP]));
    pen.font = `${size}px system-ui, 'DejaVu Sans', sans-serif`;
    let shown = item.type === "test" ? short(item.name) : item.type === "span" ? `${item.kind} ${item.name}` : item.name;
    const fits = Math.floor(room / (size * 0.6));
    if (shown.length > fits) shown = fits > 3 ? `${shown.slice(0, fits - 1)}…` : "";
    pen.fillStyle = pale ? colours.ink : root.dataset.dark ? "#0c0f14" : "#fff";
    pen.fillText(shown, left, lane.top + lane.height / 2 + 0.5);
  }

  const short = (name) => name.slice(name.lastIndexOf("::") + 2 || 0);

  function outline(item) {
    const lane = lanes.find((each) => each.items.includes(item));
    if (!lane) return;
    const left = Math.max(x(item.start), LEFT - 2), right = Math.min(Math.max(x(item.stop), x(item.start) + 3), width);
    if (right < LEFT || left > width) return;
    pen.lineWidth = item === selected ? 2 : 1;
    pen.strokeStyle = item === selected ? colours.focus : colours.ink;
    pen.strokeRect(left - 1, lane.top - 1.5, right - left + 2, lane.height + 3);
  }

  // Choosing

  function itemAt(event) {
    const box = canvas.getBoundingClientRect();
    const left = event.clientX - box.left, top = event.clientY - box.top;
    const lane = lanes.find((each) => top >= each.top - 1 && top <= each.top + each.height + 1);
    if (!lane || left < LEFT) return null;
    let best = null, distance = 5;
    for (const item of lane.items) {
      const from = x(item.start), to = Math.max(x(item.stop), from + 1);
      const away = left < from ? from - left : left > to ? left - to : 0;
      if (away < distance || (away === distance && best && bad(item.kind))) [best, distance] = [item, away];
    }
    return best;
  }

  function select(item, { reveal = false } = {}) {
    selected = item;
    if (item && reveal) {
      const span = view.to - view.from, long = item.stop - item.start;
      if (item.start < view.from || item.stop > view.to || x(item.stop) - x(item.start) < 4) {
        const wanted = Math.min(data.length, Math.max(long * 12, Math.min(span, 50)));
        show((item.start + item.stop) / 2 - wanted / 2, wanted);
      }
    }
    describe(item);
    redraw();
  }

  function show(from, span) {
    span = Math.min(Math.max(span, 1), data.length);
    view.from = Math.min(Math.max(0, from), data.length - span);
    view.to = view.from + span;
    redraw();
  }

  function zoom(factor, around = (view.from + view.to) / 2) {
    const span = Math.min(Math.max((view.to - view.from) * factor, 1), data.length);
    show(around - ((around - view.from) / (view.to - view.from)) * span, span);
  }

  function describe(item) {
    const place = $("details");
    if (!item) return;
    const facts = make("dl");
    const fact = (term, value) => value && facts.append(make("dt", {}, term), make("dd", {}, value));
    const tag = make("span", { class: `tag k-${item.kind}` }, item.kind);
    const parts = [make("h3", {}, item.name), tag];
    fact("worker", data.workers[item.worker]);
    fact("from", seconds(item.start));
    fact("took", seconds(item.stop - item.start));
    if (item.type === "test") {
      fact("setup", seconds(item.row[SETUP]));
      fact("call", seconds(item.row[CALL]));
      fact("teardown", seconds(item.row[TEARDOWN]));
      fact("uses", item.row[USES].map((use) => data.names[use]).join(", "));
      const during = spans.filter((span) => span.test === item.index && span.kind !== "setup");
      for (const span of during) fact(`${span.kind} ${span.name}`, seconds(span.stop - span.start));
    } else {
      if (item.type === "container") [fact("image", item.image), fact("state", item.state)];
      if (item.test >= 0) fact("first for", tests[item.test].name);
    }
    parts.push(facts);
    const anchor = item.type === "test" ? item.row[ANCHOR] : item.anchor;
    if (anchor) {
      const link = make("a", { href: `#${anchor}` }, item.type === "test" ? "Why it failed" : "Its log");
      link.addEventListener("click", () => open(anchor));
      parts.push(link);
    }
    place.replaceChildren(...parts);
  }

  function open(anchor) {
    for (let at = $(anchor); at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  }

  function step(by) {
    if (!selected) return select(lanes[0] && lanes[0].items[0], { reveal: true });
    const lane = lanes.find((each) => each.items.includes(selected));
    const next = lane && lane.items[lane.items.indexOf(selected) + by];
    if (next) select(next, { reveal: true });
  }

  function changeLane(by) {
    if (!selected) return step(1);
    const lane = lanes[lanes.findIndex((each) => each.items.includes(selected)) + by];
    if (!lane) return;
    const middle = (selected.start + selected.stop) / 2;
    const away = (item) => Math.max(item.start - middle, middle - item.stop, 0);
    select(lane.items.reduce((best, item) => (away(item) < away(best) ? item : best)), { reveal: true });
  }

  function nextFailure() {
    const failed = tests.filter((test) => bad(test.kind)).sort((a, b) => a.start - b.start);
    if (failed.length) select(failed[(failed.indexOf(selected) + 1) % failed.length], { reveal: true });
  }

  const KEYS = {
    ArrowRight: () => step(1), ArrowLeft: () => step(-1),
    ArrowDown: () => changeLane(1), ArrowUp: () => changeLane(-1),
    "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: () => show(0, data.length),
    f: nextFailure, Home: () => show(0, view.to - view.from), End: () => show(data.length, view.to - view.from),
  };
  canvas.addEventListener("keydown", (event) => {
    const act = KEYS[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });

  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    drag = { at: event.clientX, from: view.from, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag) {
      const moved = event.clientX - drag.at;
      drag.moved ||= Math.abs(moved) > 4;
      if (drag.moved) show(drag.from - (ms(moved) - ms(0)), view.to - view.from);
      return;
    }
    const item = itemAt(event);
    if (item === hovered) return;
    hovered = item;
    canvas.title = item ? `${item.type === "span" ? `${item.kind} ` : ""}${item.name}\n${seconds(item.stop - item.start)}` : "";
    canvas.style.cursor = item ? "pointer" : "grab";
    redraw();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (drag && !drag.moved) {
      const item = itemAt(event);
      if (item) select(item);
    }
    drag = null;
  });
  canvas.addEventListener("pointercancel", () => (drag = null));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, ms(event.clientX - canvas.getBoundingClientRect().left));
  }, { passive: false });

  for (const button of document.querySelectorAll("[data-zoom]"))
    button.addEventListener("click", () => ({ in: () => zoom(0.5), out: () => zoom(2), fit: () => show(0, data.length) })[button.dataset.zoom]());
  const failing = document.querySelector("[data-step=failed]");
  failing.addEventListener("click", nextFailure);
  failing.hidden = !tests.some((test) => bad(test.kind));
