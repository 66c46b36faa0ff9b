"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const columns = data.columns;
  const times = columns.time_s;
  const byId = (id) => document.getElementById(id);
  const make = (tag, parent, text) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };
  const number = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits));

  const COLOURS = ["#0967d2", "#e8590c", "#2f9e44", "#9c36b5", "#c2255c", "#0c8599", "#846358", "#5c677d"];
  const KINDS = {
    collision: ["collision", "#e03131"],
    lane_invasion: ["lane invasion", "#f08c00"],
    watchdog_stop: ["watchdog stop", "#7048e8"],
    stop: ["stop", "#b197fc"],
    end: ["end of an episode", "#495057"],
    gap: ["gap", "#868e96"],
    jump_back: ["jump back", "#1098ad"],
  };
  const LABELS = {
    steering: "recorded", policy_steering: "policy", speed: "recorded", policy_speed: "policy",
    q1: "Q1", q2: "Q2", policy_q: "of the policy's action", q_gap: "Q1 − Q2",
    td_error_1: "Q1's", td_error_2: "Q2's", lateral_m: "lateral", heading_error_rad: "heading",
    speed_mps: "speed", data_age_ms: "image to command", inference_ms: "inference", reward: "total",
  };
  const label = (name) => {
    const other = name.endsWith("_other");
    const base = other ? name.slice(0, -6) : name;
    const text = LABELS[base] || base.replace("reward_", "").replaceAll("_", " ");
    return other ? `${text} (${data.names[1]})` : text;
  };

  // ------------------------------------------------------------------ summary
  byId("bag").textContent = data.bag;
  const names = byId("names");
  names.append("evaluated with ");
  make("b", names, data.names[0]);
  if (data.names[1]) {
    names.append(" and ");
    make("b", names, data.names[1]);
    names.append(" (dashed)");
  }
  for (const [key, value] of Object.entries(data.facts)) {
    const fact = make("div", byId("facts"));
    make("dt", fact, key);
    make("dd", fact, value);
  }
  for (const note of data.notes) make("li", byId("notes"), note);

  // ------------------------------------------------------------------ one cursor for everything
  const plots = [];
  let current = 0;
  let held = false; // a click keeps the cursor where it is
  let moving = false;
  const nearest = (sorted, value) => {
    let low = 0, high = sorted.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (sorted[middle] <= value) low = middle; else high = middle;
    }
    return value - sorted[low] <= sorted[high] - value ? low : high;
  };
  const moveTo = (index, hold = true) => {
    held = hold;
    current = Math.max(0, Math.min(times.length - 1, index));
    const shown = plots[0].scales.x;
    if (times[current] < shown.min || times[current] > shown.max) {
      const half = (shown.max - shown.min) / 2;
      setRange(times[current] - half, times[current] + half);
    }
    placeCursors();
    show();
  };
  const placeCursors = () => {
    moving = true;
    for (const plot of plots) {
      plot.setCursor({ left: plot.valToPos(times[current], "x"), top: 20 }, false);
    }
    moving = false;
  };
  let placing = false; // a zoom does not move the cursors, so they are placed again
  const placeSoon = (_, scale) => {
    if (scale !== "x" || placing) return;
    placing = true;
    requestAnimationFrame(() => {
      placing = false;
      if (plots.length === data.plots.length) placeCursors();
    });
  };
  const jumpToTime = (time) => moveTo(nearest(times, time));
  const setRange = (min, max) => {
    for (const plot of plots) plot.setScale("x", { min, max });
  };

  // ------------------------------------------------------------------ plots
  const hidden = new Set();
  const marks = (plot) => {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.lineWidth = devicePixelRatio;
    for (const event of data.events) {
      if (hidden.has(event.kind)) continue;
      const x = plot.valToPos(event.time_s, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.strokeStyle = KINDS[event.kind][1];
      ctx.globalAlpha = 0.65;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  };
  const sync = uPlot.sync("report");
  const series = (name, place) => ({
    label: label(name),
    stroke: COLOURS[place % COLOURS.length],
    width: name === "reward" || name.endsWith("_other") ? 1.6 : 1.2,
    dash: name.endsWith("_other") ? [5, 4] : undefined,
    points: { show: false },
    value: (_, value) => number(value),
  });
  const seconds = (_, ticks) => ticks.map((value) => `${+value.toFixed(2)} s`);
  const build = (plot) => {
    const box = make("div", byId("plots"));
    box.className = "plot";
    // The second checkpoint's line has the same colour as the first one's.
    const bases = [...new Set(plot.series.map((name) => name.replace(/_other$/, "")))];
    const made = new uPlot({
      title: plot.title,
      width: box.clientWidth - 12,
      height: 150,
      scales: { x: { time: false } },
      series: [
        { label: "t", value: (_, value) => (value === null ? "–" : `${value.toFixed(2)} s`) },
        ...plot.series.map((name) => series(name, bases.indexOf(name.replace(/_other$/, "")))),
      ],
      axes: [
        { values: seconds, size: 26, grid: { stroke: "#eef2f6" }, ticks: { stroke: "#d9e2ec" }, font: "11px system-ui", stroke: "#616e7c" },
        { size: 56, grid: { stroke: "#eef2f6" }, ticks: { stroke: "#d9e2ec" }, font: "11px system-ui", stroke: "#616e7c" },
      ],
      cursor: { sync: { key: sync.key }, y: false, points: { size: 6 }, drag: { x: true, y: false } },
      hooks: {
        draw: [marks],
        setScale: [placeSoon],
        setCursor: [(self) => {
          if (moving || held || self.cursor.idx === null || self.cursor.idx === undefined) return;
          if (self.cursor.idx !== current) {
            current = self.cursor.idx;
            show();
          }
        }],
      },
    }, [times, ...plot.series.map((name) => columns[name])], box);
    made.over.addEventListener("click", () => {
      if (made.cursor.idx !== null) { held = false; moveTo(made.cursor.idx, !wasHeld); }
    });
    let wasHeld = false;
    made.over.addEventListener("mousedown", () => { wasHeld = held; });
    made.over.addEventListener("mouseleave", () => moveTo(current, held));
    sync.sub(made);
    plots.push(made);
  };
  data.plots.forEach(build);
  addEventListener("resize", () => {
    for (const plot of plots) plot.setSize({ width: plot.root.parentElement.clientWidth - 12, height: 150 });
    drawMap();
  });
  const present = new Set(data.events.map((event) => event.kind));
  for (const [kind, [text, colour]] of Object.entries(KINDS)) {
    if (!present.has(kind)) continue;
    const entry = make("label", byId("kinds"));
    const box = make("input", entry);
    box.type = "checkbox";
    box.checked = true;
    make("i", entry).style.background = colour;
    entry.append(text);
    box.addEventListener("change", () => {
      if (box.checked) hidden.delete(kind); else hidden.add(kind);
      for (const plot of plots) plot.redraw(false);
    });
  }

  // ------------------------------------------------------------------ camera and saliency
  const pictureTimes = data.pictures.map((picture) => times[picture.index]);
  const loaded = new Map();
  const image = (source) => {
    if (!loaded.has(source)) {
      const element = new Image();
      element.src = source;
      loaded.set(source, element.decode().then(() => element));
      if (loaded.size > 60) loaded.delete(loaded.keys().next().value);
    }
    return loaded.get(source);
  };
  const figure = (text) => {
    const element = make("figure", byId("cameras"));
    const canvas = make("canvas", element);
    make("figcaption", element, text);
    return canvas;
  };
  const camera = figure("");
  const looking = data.outputs.map((name) => figure(`${name} saliency`));
  // Dark to yellow: the grey camera image shows through where a map is dark.
  const heat = (value) => [Math.min(255, 510 * value), Math.max(0, 420 * (value - 0.3)), 90 * Math.sin(Math.PI * value)];
  const overlay = (canvas, picture, maps, place) => {
    const width = maps.width / data.outputs.length, height = maps.height;
    const small = new OffscreenCanvas(width, height);
    const pen = small.getContext("2d");
    pen.drawImage(maps, place * width, 0, width, height, 0, 0, width, height);
    const pixels = pen.getImageData(0, 0, width, height);
    for (let at = 0; at < pixels.data.length; at += 4) {
      const value = pixels.data[at] / 255;
      const [red, green, blue] = heat(value);
      pixels.data.set([red, green, blue, 235 * Math.pow(value, 0.8)], at);
    }
    pen.putImageData(pixels, 0, 0);
    canvas.width = picture.width;
    canvas.height = picture.height;
    const onto = canvas.getContext("2d");
    onto.filter = "grayscale(1) brightness(.75)";
    onto.drawImage(picture, 0, 0);
    onto.filter = "none";
    onto.imageSmoothingEnabled = true;
    onto.drawImage(small, 0, 0, canvas.width, canvas.height);
  };
  let wanted = -1;
  const showPicture = async (place) => {
    if (place === wanted) return;
    wanted = place;
    const entry = data.pictures[place];
    const [picture, maps] = await Promise.all([image(entry.image), entry.looks && image(entry.looks)]);
    if (place !== wanted) return; // the cursor has moved on
    camera.width = picture.width;
    camera.height = picture.height;
    camera.getContext("2d").drawImage(picture, 0, 0);
    camera.dataset.index = entry.index;
    camera.nextSibling.textContent = `camera at ${times[entry.index].toFixed(2)} s`;
    looking.forEach((canvas, output) => overlay(canvas, picture, maps, output));
  };

  // ------------------------------------------------------------------ strip
  const STRIP = 9;
  const thumbnails = Array.from({ length: Math.min(STRIP, data.pictures.length) }, () => {
    const element = make("img", byId("strip"));
    element.alt = "";
    element.addEventListener("click", () => moveTo(Number(element.dataset.index)));
    return element;
  });
  const showStrip = (place) => {
    const first = Math.max(0, Math.min(data.pictures.length - thumbnails.length, place - (thumbnails.length >> 1)));
    thumbnails.forEach((element, offset) => {
      const picture = data.pictures[first + offset];
      if (element.dataset.index !== String(picture.index)) {
        element.src = picture.image;
        element.dataset.index = picture.index;
        element.title = `${times[picture.index].toFixed(1)} s`;
      }
      element.className = first + offset === place ? "here" : "";
    });
  };

  // ------------------------------------------------------------------ map
  const map = byId("map");
  const chosen = byId("signal");
  for (const [name, text] of Object.entries(data.signals)) make("option", chosen, text).value = name;
  const STOPS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // viridis
  const colour = (share) => {
    const at = Math.max(0, Math.min(1, share)) * (STOPS.length - 1);
    const low = Math.min(STOPS.length - 2, Math.floor(at)), rest = at - low;
    return `rgb(${STOPS[low].map((value, place) => Math.round(value + rest * (STOPS[low + 1][place] - value)))})`;
  };
  const known = (values) => values.filter((value) => value !== null).sort((a, b) => a - b);
  const rangeOf = (values) => {
    const sorted = known(values);
    const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
    const [low, high] = [at(0.01), at(0.99)]; // an outlier must not take up the whole scale
    return high > low ? [low, high] : [low - 0.5, low + 0.5];
  };
  let project = null;
  let background = null;
  const fit = () => {
    const ratio = devicePixelRatio || 1;
    map.width = map.clientWidth * ratio;
    map.height = map.clientHeight * ratio;
    let [left, right, bottom, top] = [Infinity, -Infinity, Infinity, -Infinity];
    const include = ([x, y]) => {
      left = Math.min(left, x); right = Math.max(right, x);
      bottom = Math.min(bottom, y); top = Math.max(top, y);
    };
    data.path.forEach(include);
    data.routes.forEach((route) => route.forEach(include));
    const scale = 0.9 * Math.min(map.width / Math.max(right - left, 20), map.height / Math.max(top - bottom, 20));
    project = (x, y) => [map.width / 2 + scale * (x - (left + right) / 2), map.height / 2 - scale * (y - (bottom + top) / 2)];
  };
  const trace = (pen, points) => {
    pen.beginPath();
    points.forEach(([x, y], place) => pen[place ? "lineTo" : "moveTo"](...project(x, y)));
  };
  const drawMap = () => {
    fit();
    const ratio = devicePixelRatio || 1;
    background = new OffscreenCanvas(map.width, map.height);
    const pen = background.getContext("2d");
    pen.fillStyle = "#cfd8e3";
    for (const lane of data.lanes) { trace(pen, lane); pen.closePath(); pen.fill(); }
    pen.strokeStyle = "#334155";
    pen.setLineDash([5 * ratio, 4 * ratio]);
    pen.lineWidth = ratio;
    for (const route of data.routes) { trace(pen, route); pen.stroke(); }
    pen.setLineDash([]);
    pen.strokeStyle = "#9aa5b1";
    pen.lineWidth = 1.5 * ratio;
    trace(pen, data.path);
    pen.stroke();
    const values = columns[chosen.value];
    const [low, high] = rangeOf(values);
    pen.lineWidth = 3.5 * ratio;
    pen.lineCap = "round";
    for (let place = 1; place < times.length; place += 1) {
      if (columns.stretch[place] !== columns.stretch[place - 1] || values[place] === null) continue;
      pen.strokeStyle = colour((values[place] - low) / (high - low));
      pen.beginPath();
      pen.moveTo(...project(columns.x_m[place - 1], columns.y_m[place - 1]));
      pen.lineTo(...project(columns.x_m[place], columns.y_m[place]));
      pen.stroke();
    }
    for (const event of data.events) {
      if (!["collision", "lane_invasion", "watchdog_stop"].includes(event.kind)) continue;
      const at = nearest(times, event.time_s);
      pen.fillStyle = KINDS[event.kind][1];
      pen.beginPath();
      pen.arc(...project(columns.x_m[at], columns.y_m[at]), 3.5 * ratio, 0, 7);
      pen.fill();
    }
    const bar = byId("scale").getContext("2d");
    for (let x = 0; x < 160; x += 1) { bar.fillStyle = colour(x / 159); bar.fillRect(x, 0, 1, 12); }
    byId("range").textContent = `${+low.toPrecision(3)} to ${+high.toPrecision(3)}`;
    drawCar();
  };
  const drawCar = () => {
    const ratio = devicePixelRatio || 1;
    const pen = map.getContext("2d");
    pen.clearRect(0, 0, map.width, map.height);
    pen.drawImage(background, 0, 0);
    const [x, y] = project(columns.x_m[current], columns.y_m[current]);
    pen.save();
    pen.translate(x, y);
    pen.rotate(-columns.yaw_rad[current]);
    pen.beginPath();
    pen.moveTo(11 * ratio, 0);
    pen.lineTo(-7 * ratio, 6 * ratio);
    pen.lineTo(-4 * ratio, 0);
    pen.lineTo(-7 * ratio, -6 * ratio);
    pen.closePath();
    pen.fillStyle = "#e03131";
    pen.strokeStyle = "#fff";
    pen.lineWidth = 1.5 * ratio;
    pen.fill();
    pen.stroke();
    pen.restore();
  };
  chosen.addEventListener("change", drawMap);
  map.addEventListener("click", (event) => {
    const ratio = devicePixelRatio || 1;
    let best = 0, least = Infinity;
    times.forEach((_, place) => {
      const [x, y] = project(columns.x_m[place], columns.y_m[place]);
      const away = (x - event.offsetX * ratio) ** 2 + (y - event.offsetY * ratio) ** 2;
      if (away < least) [best, least] = [place, away];
    });
    moveTo(best);
  });

  // ------------------------------------------------------------------ moments and tables
  const NUMBERS = {
    steering: "steering, recorded", policy_steering: "steering, policy", speed: "speed action, recorded",
    policy_speed: "speed action, policy", q1: "Q1", q2: "Q2", td_error_1: "TD error", speed_mps: "speed [m/s]",
    lateral_m: "lateral error [m]", reward: "reward",
  };
  const pictureOf = new Map(data.pictures.map((picture) => [picture.index, picture]));
  let group = null;
  for (const moment of data.moments) {
    if (moment.rank === 1) {
      make("h3", byId("moments"), moment.title);
      group = make("div", byId("moments"));
      group.className = "moments";
    }
    const card = make("article", group);
    make("h4", card, `${number(columns[moment.kind][moment.index])} at ${times[moment.index].toFixed(1)} s`);
    const picture = make("img", card);
    picture.alt = "";
    picture.loading = "lazy";
    picture.src = pictureOf.get(moment.index).image;
    const table = make("table", card);
    for (const [name, text] of Object.entries(NUMBERS)) {
      if (!columns[name]) continue;
      const row = make("tr", table);
      make("td", row, text);
      make("td", row, number(columns[name][moment.index])).className = "number";
    }
    card.addEventListener("click", () => { moveTo(moment.index); scrollTo({ top: 0, behavior: "smooth" }); });
  }
  const table = (id, head, rows, jump) => {
    const first = make("tr", byId(id));
    for (const text of head) make("th", first, text);
    rows.forEach((cells, place) => {
      const row = make("tr", byId(id));
      for (const cell of cells) {
        const element = make("td", row, cell);
        if (/^[-–\d]/.test(cell)) element.className = "number";
      }
      if (jump) {
        row.className = "jump";
        row.addEventListener("click", () => jumpToTime(jump(place)));
      }
    });
  };
  table("events", ["time", "event", "detail"], data.events.slice(0, 400).map((event) => [`${event.time_s.toFixed(1)} s`, KINDS[event.kind][0], event.text]), (place) => data.events[place].time_s);
  table("stretches", ["start", "duration", "distance", "route driven", "return", "ended by"], data.stretches.map((part) => [`${number(part.begin_s, 1)} s`, `${number(part.duration_s, 1)} s`, `${number(part.distance_m, 0)} m`, `${number(100 * part.completion, 0)} %`, number(part.reward, 1), part.ended_by.replaceAll("_", " ")]), (place) => data.stretches[place].begin_s);
  table("topics", ["topic", "messages", "per second"], data.topics.map(([name, kind, count, rate]) => [name, String(count), number(rate, 1)]));

  // ------------------------------------------------------------------ show, play, keys
  const show = () => {
    byId("now").textContent = `${times[current].toFixed(2)} s   ${number(columns.speed_mps[current], 1)} m/s`;
    const place = nearest(pictureTimes, times[current]);
    showPicture(place);
    showStrip(place);
    if (background) drawCar();
  };
  let playing = null;
  const play = () => {
    if (playing !== null) {
      cancelAnimationFrame(playing);
      playing = null;
      byId("play").textContent = "Play";
      return;
    }
    if (current === times.length - 1) moveTo(0);
    const [begin, from] = [performance.now(), times[current]];
    byId("play").textContent = "Stop";
    const step = (now) => {
      const time = from + (now - begin) / 1000;
      moveTo(nearest(times, time));
      if (time >= times[times.length - 1]) { play(); return; }
      playing = requestAnimationFrame(step);
    };
    playing = requestAnimationFrame(step);
  };
  byId("play").addEventListener("click", play);
  addEventListener("keydown", (event) => {
    if (event.target.tagName === "SELECT" || event.target.tagName === "INPUT") return;
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
    if (event.key === " ") play();
    else if (steps) moveTo(current + steps);
    else if (event.key === "Home") moveTo(0);
    else if (event.key === "End") moveTo(times.length - 1);
    else return;
    event.preventDefault();
  });
  drawMap();
  requestAnimationFrame(() => moveTo(0, false)); // the plots have their scales by then
  window.report = { moveTo, plots, state: () => ({ index: current, picture: Number(camera.dataset.index), cursors: plots.map((plot) => plot.cursor.idx) }) };
})();
