"use strict";
(function () {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const words = read("words");
  const say = (name, values) => words[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);

  // Light and dark
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const remembered = (value) => {
    try {
      if (value !== undefined) localStorage.setItem("tracin-func-theme", value);
      return localStorage.getItem("tracin-func-theme");
    } catch (error) {
      return null; // a page without storage, as in a frame
    }
  };
  if (remembered()) root.dataset.theme = remembered();
  document.getElementById("theme").addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    remembered(root.dataset.theme);
  });

  // On paper nothing can be opened
  addEventListener("beforeprint", () => {
    for (const each of document.querySelectorAll("details")) each.open = true;
  });

  // Sound: one at a time
  const sounds = read("sounds");
  const audio = new Audio();
  let playing = null;
  const stop = () => {
    audio.pause();
    if (playing) playing.setAttribute("aria-pressed", "false");
    playing = null;
  };
  audio.addEventListener("ended", stop);
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".play");
    if (!button) return;
    const again = button === playing;
    stop();
    if (again) return;
    audio.src = sounds[button.dataset.sound];
    playing = button;
    button.setAttribute("aria-pressed", "true");
    audio.play().catch(stop);
  });

  // All pairs: the data of many are packed
  const unpacked = async () => {
    const holder = document.getElementById("data");
    const bytes = Uint8Array.from(atob(holder.textContent), (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  };
  const start = (data) => {
    const count = data.first.length;
    const table = document.getElementById("pairs");
    const search = document.getElementById("search");
    const rows = document.getElementById("rows");
    const chooser = document.getElementById("second-column");
    const fixed = data.columns.map((column, place) => place).filter((place) => data.columns[place].name !== "test");
    const tests = data.columns.map((column, place) => place).filter((place) => data.columns[place].name === "test");
    const small = matchMedia("(max-width: 820px)");
    let order = Array.from({ length: count }, (_, row) => row);
    let shown = order;
    let sorted = data.columns.length && data.columns[0].name === "self" ? 0 : null;
    let down = true;
    let page = 0;
    const nameOf = (item) => (item < 0 ? "" : data.items[item]);
    const classOf = (item) => (item < 0 || !data.classes.length ? "" : data.classes[item]);
    const idOf = (row) => (data.ids.length ? data.ids[row] : nameOf(data.first[row]) + "_" + nameOf(data.second[row]));

    const visible = () => {
      const chosen = Number(chooser.value);
      if (!small.matches) return fixed.concat(tests.includes(chosen) ? [chosen] : []);
      return Number.isInteger(chosen) && data.columns.length ? [chosen] : [];
    };

    const text = (value) => {
      if (value === null) return "–";
      const size = Math.abs(value);
      if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(2).replace("-", "−").replace("e-", "e−");
      const digits = size === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(size)));
      const form = { minimumFractionDigits: Number.isInteger(value) ? 0 : digits, maximumFractionDigits: digits };
      return value.toLocaleString("en-US", form).replace("-", "−");
    };

    const element = (tag, content, kind) => {
      const made = document.createElement(tag);
      if (kind) made.className = kind;
      if (content !== undefined) made.textContent = content;
      return made;
    };

    const heading = (place, title) => {
      const cell = element("th", undefined, place === "ids" ? "" : tests.includes(place) ? "number long" : "number");
      cell.scope = "col";
      const button = element("button", title);
      button.type = "button";
      button.dataset.column = place;
      if (sorted === place) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      cell.append(button);
      return cell;
    };

    const draw = () => {
      const size = Number(rows.value);
      const last = Math.max(0, Math.ceil(shown.length / size) - 1);
      page = Math.min(page, last);
      const columns = visible();
      const head = element("tr");
      head.append(heading("ids", words.pair), ...columns.map((place) => heading(place, data.columns[place].title)));
      const body = element("tbody");
      for (const row of shown.slice(page * size, (page + 1) * size)) {
        const line = element("tr");
        const ids = element("td", undefined, "ids");
        if (data.ids.length) ids.append(element("code", data.ids[row]));
        if (data.first[row] >= 0) ids.append(element("code", nameOf(data.first[row])), element("code", nameOf(data.second[row])));
        line.append(ids);
        for (const place of columns) {
          const value = data.columns[place].values[row];
          const share = data.columns[place].name === "active_share" && value !== null;
          line.append(element("td", share ? Math.round(100 * value) + "%" : text(value), value < 0 ? "number negative" : "number"));
        }
        body.append(line);
      }
      if (!shown.length) {
        const cell = element("td", words.nothing);
        cell.colSpan = columns.length + 1;
        const line = element("tr");
        line.append(cell);
        body.append(line);
      }
      const top = element("thead");
      top.append(head);
      table.replaceChildren(top, body);
      const from = shown.length ? page * size + 1 : 0;
      const to = Math.min(shown.length, (page + 1) * size);
      const whole = (value) => value.toLocaleString("en-US");
      document.getElementById("range").textContent = say("range", { from: whole(from), to: whole(to), count: whole(shown.length) });
      document.getElementById("previous").disabled = page === 0;
      document.getElementById("next").disabled = page === last;
    };

    const sort = () => {
      if (sorted === null) {
        order = Array.from({ length: count }, (_, row) => row);
      } else if (sorted === "ids") {
        const names = order.map(() => "");
        for (const row of order) names[row] = idOf(row);
        order.sort((one, other) => (names[one] < names[other] ? -1 : names[one] > names[other] ? 1 : one - other));
        if (down) order.reverse();
      } else {
        const values = data.columns[sorted].values;
        const sign = down ? -1 : 1;
        order.sort((one, other) => {
          const a = values[one], b = values[other];
          if (a === b) return one - other;
          if (a === null || b === null) return a === null ? 1 : -1;
          return sign * (a - b);
        });
      }
      filter();
    };

    const filter = () => {
      const parts = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      shown = order;
      for (const part of parts) {
        const fits = data.items.map((item, place) => item.toLowerCase().includes(part) || classOf(place).toLowerCase() === part);
        shown = shown.filter((row) => fits[data.first[row]] || fits[data.second[row]] || idOf(row).toLowerCase().includes(part));
      }
      page = 0;
      draw();
    };

    table.addEventListener("click", (event) => {
      const button = event.target.closest("th button");
      if (!button) return;
      const place = button.dataset.column === "ids" ? "ids" : Number(button.dataset.column);
      down = sorted === place ? !down : place !== "ids";
      sorted = place;
      sort();
      table.querySelector('th button[data-column="' + place + '"]').focus();
    });
    search.addEventListener("input", filter);
    rows.addEventListener("change", () => { page = 0; draw(); });
    document.getElementById("previous").addEventListener("click", () => { page -= 1; draw(); });
    document.getElementById("next").addEventListener("click", () => { page += 1; draw(); });
    const choices = () => {
      const before = chooser.value;
      const places = small.matches ? fixed.concat(tests) : tests;
      chooser.replaceChildren(...places.map((place) => {
        const made = element("option", data.columns[place].title);
        made.value = String(place);
        return made;
      }));
      if (places.includes(Number(before)) && before !== "") chooser.value = before;
      document.getElementById("second-column-label").hidden = places.length < 2;
    };
    chooser.addEventListener("change", () => { sorted = Number(chooser.value); down = true; sort(); });
    small.addEventListener("change", () => { choices(); draw(); });
    choices();
    draw();
    document.documentElement.dataset.ready = "true";
  };
  if (document.getElementById("data").type === "application/json") start(read("data"));
  else unpacked().then(start, () => { document.getElementById("range").textContent = words.too_old; });
})();
