"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const make = (tag, parent, text) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };
  const draw = (tag, parent, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    parent.append(element);
    return element;
  };
  const number = (value, digits) => (value === null ? "–" : value.toFixed(digits));
  const several = data.contenders.length > 1;

  // ------------------------------------------------------------------ summary
  byId("suite").textContent = `Suite ${data.suite.name}`;
  byId("description").textContent = data.suite.description;
  byId("digest").textContent = `SHA-256 of the suite's file: ${data.suite.sha256}`;
  for (const contender of data.contenders) {
    const row = make("tr", byId("contenders"));
    make("th", row, contender.name);
    const what = contender.baseline ? "baseline" : `${contender.policy}, step ${contender.step}`;
    make("td", row, what).className = "path";
  }

  // ------------------------------------------------------------------ tables
  const estimate = (row, [value, low, high], digits) => {
    const cell = make("td", row, number(value, digits));
    cell.className = "number";
    if (value !== null) make("small", cell, `${number(low, digits)} to ${number(high, digits)}`);
    return cell;
  };
  const heads = (table, names) => {
    const row = make("tr", table);
    make("th", row, "driver");
    for (const name of names) {
      const head = make("th", row, data.columns[name].title);
      if (data.columns[name].unit) make("small", head, data.columns[name].unit);
    }
  };
  const groupRow = (table, group, columns) => {
    const row = make("tr", table);
    row.className = "group";
    const head = make("th", row, group.name);
    head.colSpan = columns + 1;
    make("small", head, group.conditions);
  };
  const best = (group, name) => {
    const values = group.figures.map((figures) => figures[name][0]).filter((value) => value !== null);
    const { better } = data.columns[name];
    if (!several || !better || !values.length) return null;
    return better === "higher" ? Math.max(...values) : Math.min(...values);
  };
  const names = Object.keys(data.columns);
  heads(byId("figures"), names);
  for (const group of data.groups) {
    groupRow(byId("figures"), group, names.length);
    data.contenders.forEach((contender, place) => {
      const row = make("tr", byId("figures"));
      make("td", row, contender.name);
      for (const name of names) {
        const found = group.figures[place][name];
        const cell = estimate(row, found, data.columns[name].digits);
        if (found[0] !== null && found[0] === best(group, name)) cell.classList.add("best");
      }
    });
  }
  byId("comparison").hidden = !several;
  heads(byId("differences"), data.compared);
  for (const group of data.groups) {
    groupRow(byId("differences"), group, data.compared.length);
    data.contenders.forEach((contender, place) => {
      if (!place) return;
      const row = make("tr", byId("differences"));
      make("td", row, `${contender.name} − ${data.contenders[0].name}`);
      for (const name of data.compared) {
        const found = group.differences[place][name];
        const cell = estimate(row, found, data.columns[name].digits);
        if (found[1] > 0 || found[2] < 0) cell.classList.add("clear");
      }
    });
  }

  // ------------------------------------------------------------------ what is chosen
  const groupNames = data.groups.map((group) => group.name);
  data.contenders.forEach((contender, place) => {
    make("option", byId("contender"), contender.name).value = place;
  });
  groupNames.forEach((name, place) => {
    make("option", byId("group"), name).value = place;
  });
  byId("group").value = groupNames.length - 1; // all of them
  const isAll = () => Number(byId("group").value) === data.groups.length - 1;
  const chosen = () =>
    data.episodes.filter(
      (episode) =>
        episode.contender === Number(byId("contender").value) &&
        (isAll() || episode.group === Number(byId("group").value)),
    );
  const told = (episode) =>
    `${groupNames[episode.group]}, ${episode.map_title}, seed ${episode.seed}: ` +
    `${episode.ended_by.replaceAll("_", " ")} after ${episode.duration_s.toFixed(1)} s, ` +
    `${(100 * episode.completion).toFixed(0)} % of the route`;

  // ------------------------------------------------------------------ maps
  const points = (line) => line.map(([x, y]) => `${x},${-y}`).join(" ");
  const box = (lines) => {
    const xs = lines.flat().map(([x]) => x);
    const ys = lines.flat().map(([, y]) => -y);
    const least = (values) => values.reduce((one, other) => Math.min(one, other), Infinity);
    const [left, top] = [least(xs) - 5, least(ys) - 5];
    const [right, bottom] = [5 - least(xs.map((x) => -x)), 5 - least(ys.map((y) => -y))];
    return [left, top, right - left, bottom - top];
  };
  let marked = -1;
  const mark = (index) => {
    marked = index;
    for (const element of document.querySelectorAll("[data-episode]")) {
      element.classList.toggle("here", Number(element.dataset.episode) === index);
    }
  };
  const drawMaps = (episodes) => {
    byId("maps").replaceChildren();
    for (const [name, lanes] of Object.entries(data.maps)) {
      const here = episodes.filter((episode) => episode.map === name);
      if (!here.length) continue;
      const figure = make("figure", byId("maps"));
      const around = box([...lanes, ...here.map((episode) => episode.path)]);
      const svg = draw("svg", figure, { viewBox: around.join(" ") });
      for (const lane of lanes) draw("polygon", svg, { points: points(lane) });
      for (const episode of here) {
        draw("polyline", svg, { points: points(episode.route), class: "route" });
      }
      for (const episode of here) {
        const kind = episode.success ? "path success" : "path";
        const line = draw("polyline", svg, { points: points(episode.path), class: kind });
        const index = data.episodes.indexOf(episode);
        line.dataset.episode = index;
        line.addEventListener("click", () => mark(index));
        draw("title", line, {}).textContent = told(episode);
        if (episode.success) continue;
        const [x, y] = episode.path[episode.path.length - 1];
        draw("circle", svg, { cx: x, cy: -y, r: Math.max(around[2], around[3]) / 90 });
      }
      const reached = here.filter((episode) => episode.success).length;
      make("figcaption", figure, `${here[0].map_title}: ${reached} of ${here.length} reached the end`);
    }
  };

  // ------------------------------------------------------------------ clips
  let timers = [];
  const player = (card, clip) => {
    const canvas = make("canvas", card);
    const controls = make("div", card);
    controls.className = "controls";
    const play = make("button", controls, "Play");
    play.type = "button";
    const slider = make("input", controls);
    Object.assign(slider, { type: "range", min: 0, max: clip.frames - 1, value: clip.frames - 1 });
    slider.setAttribute("aria-label", "frame");
    const strip = new Image();
    const show = () => {
      const height = strip.naturalHeight / clip.frames;
      Object.assign(canvas, { width: strip.naturalWidth, height });
      canvas.getContext("2d").drawImage(strip, 0, -height * Number(slider.value));
    };
    strip.addEventListener("load", show);
    strip.src = clip.url;
    slider.addEventListener("input", show);
    let timer = null;
    const stop = () => {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
    };
    play.addEventListener("click", () => {
      if (timer !== null) return stop();
      if (Number(slider.value) >= clip.frames - 1) slider.value = 0;
      play.textContent = "Pause";
      timer = setInterval(() => {
        slider.value = Number(slider.value) + 1;
        show();
        if (Number(slider.value) >= clip.frames - 1) stop();
      }, 1000 / clip.frames_per_s);
    });
    timers.push(stop);
  };
  const drawClips = (episodes) => {
    timers.forEach((stop) => stop());
    timers = [];
    byId("clips").replaceChildren();
    const failures = episodes.filter((episode) => !episode.success);
    const shown = failures.filter((episode) => episode.clip);
    byId("clips-note").textContent = failures.length
      ? `The last seconds of ${shown.length} of ${failures.length} failures.`
      : "There were none.";
    for (const episode of shown) {
      const card = make("article", byId("clips"));
      const index = data.episodes.indexOf(episode);
      card.dataset.episode = index;
      player(card, episode.clip);
      make("p", card, told(episode));
      card.addEventListener("click", () => mark(index));
    }
  };

  const show = () => {
    const episodes = chosen();
    drawMaps(episodes);
    drawClips(episodes);
    mark(marked);
  };
  for (const id of ["contender", "group"]) byId(id).addEventListener("change", show);
  show();
  window.suite = { state: () => ({ marked, episodes: chosen().length }) };
})();
