// The playground: receptive fields, cost and rules of a list of layers; the means of a normalization. No library.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("playground-data").textContent);

  const build = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.includes("-") || name === "role") element.setAttribute(name, value);
      else element[name] = value;
    }
    element.append(...children);
    return element;
  };
  const svg = (tag, attributes, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const grouped = (number) => number.toLocaleString("en");

  // ---- What a list of layers does ----

  const WINDOWS = ["conv", "maxpool", "avgpool"];
  const POOLING = { maxpool: "max pooling", avgpool: "average pooling", average: "average pooling" };
  const KINDS = [...WINDOWS, "average", "norm", "relu", "dropout", "linear"];
  const LETTERS = { k: "kernel", s: "stride", p: "padding", d: "dilation", g: "groups" };
  const ACCEPTED = { conv: "kspdg", maxpool: "kspd", avgpool: "ksp" };

  function parse(line) {
    const [kind, ...words] = line.trim().split(/\s+/);
    if (!KINDS.includes(kind)) throw new Error(`unknown layer '${kind}', expected one of ${KINDS.join(", ")}`);
    const layer = { kind, padding: 0, dilation: 1, groups: 1, bias: true };
    for (const word of words) {
      const [, letter, digits] = /^([a-z]?)(\d+)$/.exec(word) ?? [];
      const value = Number(digits);
      if (word === "nobias" && kind === "conv") layer.bias = false;
      else if (letter === "" && ["conv", "linear"].includes(kind) && value > 0) layer.out = value;
      else if (letter && ACCEPTED[kind]?.includes(letter) && (value > 0 || letter === "p")) layer[LETTERS[letter]] = value;
      else throw new Error(`'${word}' is not understood after ${kind}`);
    }
    if (["conv", "linear"].includes(kind) && !layer.out) throw new Error(`${kind} needs a number of outputs: ${kind} 32`);
    if (WINDOWS.includes(kind) && !layer.kernel) throw new Error(`${kind} needs a kernel: k3`);
    layer.stride ??= kind === "conv" ? 1 : layer.kernel;
    return layer;
  }

  // One row per layer; throws an error that names the line.
  function compute(text, channels, size) {
    const rows = [];
    let jump = 1, field = 1, flat = false;
    text.split("\n").forEach((line, index) => {
      if (!line.trim()) return;
      try {
        const row = { line: line.trim(), number: index + 1, sizeIn: size, channelsIn: channels, ...parse(line), parameters: 0, macs: 0 };
        const { kind, padding, dilation, groups, stride } = row;
        if (flat && !["linear", "relu", "dropout"].includes(kind)) throw new Error(`${kind} needs a grid, and linear left none`);
        if (WINDOWS.includes(kind)) {
          size = Math.floor((size + 2 * padding - dilation * (row.kernel - 1) - 1) / stride) + 1;
          if (size < 1) throw new Error(`the grid of ${row.sizeIn} pixels is smaller than the window`);
          if (kind !== "conv" && 2 * padding > row.kernel) throw new Error("padding is more than half of the kernel");
        }
        if (kind === "average" && size > 1) { row.kernel = row.stride = size; size = 1; }
        if (kind === "conv") {
          if (channels % groups || row.out % groups) throw new Error(`${groups} groups do not divide ${channels} and ${row.out} channels`);
          channels = row.out;
          const weights = channels * (row.channelsIn / groups) * row.kernel ** 2;
          row.parameters = weights + (row.bias ? channels : 0);
          row.macs = weights * size ** 2;
        }
        if (kind === "norm") row.parameters = 2 * channels;
        // In the course's networks ReLU works in place, and in evaluation dropout hands on what it gets.
        row.outputs = ["relu", "dropout"].includes(kind) ? 0 : channels * size ** 2;
        if (kind === "linear") {
          const inputs = channels * size ** 2;
          row.outputs = row.out; // what it flattens first is a view
          row.macs = inputs * row.out;
          row.parameters = row.macs + row.out;
          [channels, size] = [row.out, 1];
        }
        if (row.kernel) {
          row.formula = `r = ${field} + (${row.kernel} − 1)·${dilation}·${jump}, j = ${jump}·${row.stride}`;
          field += (row.kernel - 1) * dilation * jump;
          jump *= row.stride;
        }
        flat ||= kind === "linear";
        rows.push({ ...row, sizeOut: size, channels, jump, field });
      } catch (error) {
        throw new Error(`line ${index + 1}: ${error.message}`);
      }
    });
    return rows;
  }

  const sum = (rows, what) => rows.reduce((total, row) => total + row[what], 0);
  const budget = (rows) => ({ parameters: sum(rows, "parameters"), macs: sum(rows, "macs"), activation_bytes: 4 * sum(rows, "outputs") });

  // Along one axis: which pixels the central output of row `index` reads, and where its field begins and ends.
  function reads(rows, index) {
    let places = new Set([Math.floor(rows[index].sizeOut / 2)]);
    let [low, high] = [...places, ...places];
    for (const row of rows.slice(0, index + 1).reverse()) {
      if (row.kind === "linear") { // all of them
        places = new Set(Array(row.sizeIn).keys());
        [low, high] = [0, row.sizeIn - 1];
      } else if (row.kernel) {
        const steps = [...Array(row.kernel).keys()];
        const before = [...places].flatMap((place) => steps.map((step) => place * row.stride - row.padding + step * row.dilation));
        places = new Set(before.filter((place) => place >= 0 && place < row.sizeIn));
        low = low * row.stride - row.padding;
        high = high * row.stride - row.padding + (row.kernel - 1) * row.dilation;
      }
    }
    return { places: [...places].sort((a, b) => a - b), low, high };
  }

  // As `audit` does it, for layers in a row.
  function keeps(rows, name) {
    const { asked, texts } = data.rules[name];
    const depthwise = (row) => row.kind === "conv" && row.groups > 1 && row.groups === row.channelsIn;
    const pointwise = (row) => row.kind === "conv" && row.kernel === 1 && !depthwise(row);
    const pools = (row) => row.kind in POOLING && row.sizeOut > 1 && row.sizeOut < row.sizeIn;
    const acting = rows.filter((row) => row.kind in POOLING || row.kind === "conv" || row.kind === "linear");
    const followed = (first, then) => acting.filter((row, index) => first(row) && index + 1 < acting.length && then(acting[index + 1])).length;
    const number = (holds) => rows.filter(holds).length;
    const last = rows.filter((row) => row.sizeIn > 1 && row.sizeOut === 1).at(-1);
    const collapse = !last ? "none" : last.kind === "conv" ? "convolution" : POOLING[last.kind] ?? last.kind;
    const found = [ // in the order of the package's rules
      ["max_parameters", sum(rows, "parameters"), (a, b) => a < b],
      ["min_receptive_field", Math.max(1, ...rows.filter((row) => row.sizeOut > 1).map((row) => row.field)), (a, b) => a > b],
      ["transitions", followed(pointwise, pools), (a, b) => a === b],
      ["max_pooling", number((row) => row.kind === "maxpool"), (a) => a === 0],
      ["strided", number((row) => row.kind === "conv" && row.stride > 1 && row.kernel === 3), (a, b) => a >= b],
      ["separable", followed((row) => depthwise(row) && row.kernel > 1, pointwise), (a, b) => a >= b],
      ["dilated", number((row) => row.kind === "conv" && row.dilation > 1 && row.kernel > 1), (a, b) => a >= b],
      ["global_average", collapse, (a) => a === "average pooling"],
      ["fully_connected", number((row) => row.kind === "linear"), (a) => a === 0],
      ["min_accuracy", null], ["max_epochs", null],
    ];
    const free = { max_pooling: true, fully_connected: true, global_average: false };
    const counting = found.filter(([rule]) => (rule in free ? asked[rule] !== free[rule] : asked[rule] !== null));
    return counting.map(([rule, value, holds], index) => ({
      rule: texts[index], found: value, passes: value === null ? "not known" : holds(value, asked[rule]) ? "yes" : "NO",
    }));
  }

  // ---- The tool for layers ----

  function layersTool(place) {
    const names = Object.keys(data.networks);
    const preset = build("select", {}, build("option", { value: "", textContent: "your own layers" }),
      ...names.map((name) => build("option", { value: name, textContent: name })));
    const size = build("input", { type: "number", min: 1, max: 128, value: 32 });
    const channels = build("input", { type: "number", min: 1, max: 512, value: 3 });
    const text = build("textarea", { rows: 10, spellcheck: false, "aria-describedby": "layers-error" });
    const error = build("p", { className: "wrong", id: "layers-error", role: "alert" });
    const rules = build("select", {}, ...Object.keys(data.rules).map((name) => build("option", { value: name, textContent: name })));
    const ticks = build("ul", { className: "rules" });
    const total = build("p", { role: "status" });
    const body = build("tbody");
    const picture = build("div"), said = build("p", { "aria-live": "polite" });
    let selected = null; // null: the last layer that sees at most half of the image

    const heads = ["layer", "grid", "channels", "parameters", "multiply-adds", "jump j", "field r", "step", "change"];
    const table = build("table", { className: "table" },
      build("thead", {}, build("tr", {}, ...heads.map((textContent) => build("th", { textContent, scope: "col" })))), body);

    const labelled = (label, input) => build("label", {}, label + " ", input);
    const kind = build("select", {}, ...KINDS.map((value) => build("option", { value, textContent: value })));
    const fields = Object.fromEntries(Object.entries({ out: 32, k: 3, s: 1, p: 1, d: 1, g: 1 }).map(([name, value]) => [
      name, build("input", { type: "number", min: name === "p" ? 0 : 1, value }),
    ]));
    const takes = () => ({ linear: ["out"], conv: ["out", ..."kspdg"] }[kind.value] ?? [...(ACCEPTED[kind.value] ?? "")]);
    const offer = () => Object.entries(fields).forEach(([name, input]) => { input.disabled = !takes().includes(name); });
    kind.addEventListener("change", offer);
    const add = build("button", { type: "submit", textContent: "Add this layer" });
    const form = build("form", {}, build("fieldset", {}, build("legend", { textContent: "Add a layer" }), labelled("kind", kind),
      ...Object.entries(fields).map(([name, input]) => labelled(LETTERS[name] ?? "channels", input)), add));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const words = takes().map((name) => (name === "out" ? "" : name) + fields[name].value);
      write([...lines(), [kind.value, ...words].join(" ")]);
    });

    const lines = () => text.value.split("\n").filter((line) => line.trim());
    const write = (list) => { text.value = list.join("\n"); preset.value = ""; show(); };
    const change = (index, to) => {
      const list = lines(), [line] = list.splice(index, 1);
      if (to !== null) list.splice(to, 0, line);
      if (selected === index && to !== null) selected = to;
      write(list);
    };

    function rowOf(row, index, count) {
      const button = (label, what, act, disabled = false) => {
        const made = build("button", { type: "button", textContent: label, disabled, "aria-label": `${what} layer ${index + 1}` });
        made.addEventListener("click", act);
        return made;
      };
      const pick = button(row.line, "show", () => { selected = index; show(); body.rows[index].querySelector("button").focus(); });
      pick.setAttribute("aria-label", `${row.line}: show what layer ${index + 1} reads`);
      const cells = [pick, `${row.sizeIn} → ${row.sizeOut}`, row.channels, grouped(row.parameters), grouped(row.macs),
        row.jump, row.field, row.formula ?? ""];
      const line = build("tr", {}, ...cells.map((cell, i) => build("td", { className: i % 7 ? "number" : "text" }, cell)), build("td", {},
        button("↑", "move up", () => change(index, index - 1), index === 0), " ",
        button("↓", "move down", () => change(index, index + 1), index === count - 1), " ",
        button("✕", "remove", () => change(index, null))));
      if (index === selected) line.setAttribute("aria-current", "true");
      return line;
    }

    function draw(rows) {
      const row = rows[selected], n = Number(size.value), { places, low, high } = reads(rows, selected);
      const cell = Math.max(3, Math.floor(320 / n)), side = n * cell;
      const path = places.flatMap((y) => places.map((x) => `M${x * cell} ${y * cell}h${cell}v${cell}h${-cell}z`)).join("");
      const lines = [...Array(n + 1).keys()].map((i) => `M${i * cell} 0V${side}M0 ${i * cell}H${side}`).join("");
      const words = `The middle output after ${row.line} has a receptive field of ${row.field}×${row.field} pixels. `
        + `Of the ${n}×${n} pixels of the image it reads ${places.length}×${places.length}.`;
      picture.replaceChildren(svg("svg", { viewBox: `-1 -1 ${side + 2} ${side + 2}`, width: side + 2, height: side + 2, role: "img", "aria-label": words },
        svg("rect", { width: side, height: side, fill: "var(--pst-color-surface)" }),
        svg("path", { d: path, fill: "var(--pst-color-primary)" }),
        svg("path", { d: lines, stroke: "var(--pst-color-border)", "stroke-width": 0.5 }),
        svg("rect", { x: low * cell, y: low * cell, width: (high - low + 1) * cell, height: (high - low + 1) * cell, fill: "none",
          stroke: "var(--pst-color-text-base)", "stroke-width": 2, "stroke-dasharray": "6 4" })));
      said.textContent = words + " Filled: what it reads; dashed: the receptive field, which may reach into the padding. Pick another layer in the table.";
    }

    function show() {
      let rows;
      try {
        for (const [input, what] of [[size, "the image's side"], [channels, "the number of channels"]]) {
          if (!input.checkValidity() || !Number.isInteger(input.valueAsNumber)) throw new Error(`${what} is '${input.value}', expected ${input.min} to ${input.max}`);
        }
        rows = compute(text.value, channels.valueAsNumber, size.valueAsNumber);
        error.textContent = "";
      } catch (problem) {
        error.textContent = problem.message;
        return;
      }
      selected = Math.min(selected ?? rows.findLastIndex((row) => 2 * row.field <= size.valueAsNumber), rows.length - 1);
      const cost = budget(rows);
      total.textContent = `${rows.length} layers: ${grouped(cost.parameters)} parameters, ${grouped(cost.macs)} multiply-adds and `
        + `${(cost.activation_bytes / 2 ** 20).toFixed(2)} MiB of activations per image.`;
      body.replaceChildren(...rows.map((row, index) => rowOf(row, index, rows.length)));
      const marks = { yes: "✓ kept", NO: "✗ broken", "not known": "? not known here" };
      ticks.replaceChildren(...keeps(rows, rules.value).map(({ rule, found, passes }) => {
        const value = found === null ? "" : `, found ${typeof found === "number" ? grouped(found) : found}`;
        return build("li", {}, build("strong", { textContent: marks[passes], className: passes === "NO" ? "wrong" : "" }), `: ${rule}${value}`);
      }));
      if (rows.length) draw(rows);
      else { picture.replaceChildren(); said.textContent = "Add a layer to begin."; }
    }

    preset.addEventListener("change", () => { if (preset.value) { text.value = data.networks[preset.value]; selected = null; show(); } });
    text.addEventListener("input", () => { preset.value = ""; show(); });
    for (const input of [size, channels, rules]) input.addEventListener("input", show);
    place.append(
      build("p", {}, labelled("Start from", preset), labelled("image side", size), labelled("channels", channels)),
      build("div", { className: "sides" },
        build("div", {}, labelled("Layers, one per line", text), error, form), build("div", {}, picture, said)),
      total, build("div", { className: "scrolling", role: "region", tabIndex: 0, "aria-label": "Layers, step by step" }, table),
      build("h3", { textContent: "Does it keep the rules?" }), labelled("Rules of session", rules), ticks);
    preset.value = names.at(-1);
    preset.dispatchEvent(new Event("change"));
    offer();
  }

  // ---- The tool for axes ----

  const AXES = ["N", "C", "H", "W"];
  const shape = [data.batch.length, data.batch[0].length, data.batch[0][0].length, data.batch[0][0][0].length];

  // The means over some axes, in order of their first cell; `groups` cuts C into so many where C is averaged over.
  function means(axes, groups) {
    const [N, C, H, W] = shape, found = new Map(), owner = (n, c, h, w) => JSON.stringify([
      axes.includes("N") || n, axes.includes("C") ? Math.floor(c / (C / groups)) : c, axes.includes("H") || h, axes.includes("W") || w,
    ]);
    for (let n = 0; n < N; n++) for (let c = 0; c < C; c++) for (let h = 0; h < H; h++) for (let w = 0; w < W; w++) {
      const key = owner(n, c, h, w);
      if (!found.has(key)) found.set(key, { index: found.size, total: 0, count: 0 });
      const mean = found.get(key);
      mean.total += data.batch[n][c][h][w];
      mean.count += 1;
    }
    return { list: [...found.values()].map(({ total, count }) => ({ mean: total / count, count })), of: (...cell) => found.get(owner(...cell)).index };
  }

  function usualName(axes, groups) {
    const key = axes.join(""), C = shape[1];
    if (key === "NHW") return "batch normalization";
    if (key === "CHW") return groups === 1 ? "layer normalization" : groups === C ? "instance normalization" : `group normalization with ${groups} groups`;
    return key === "HW" ? "instance normalization" : "no usual normalization";
  }

  function axesTool(place) {
    const [N, C, H, W] = shape;
    const boxes = AXES.map((value) => build("input", { type: "checkbox", value }));
    const divisors = [...Array(C).keys()].map((i) => i + 1).filter((i) => C % i === 0);
    const groups = build("select", {}, ...divisors.map((value) => build("option", { value, textContent: value })));
    const presets = { batch: ["NHW", 1], layer: ["CHW", 1], group: ["CHW", divisors.at(-2)], instance: ["HW", 1] };
    const cube = build("div"), said = build("p", { role: "status" }), body = build("tbody");
    const buttons = Object.entries(presets).map(([textContent, [axes, count]]) => {
      const button = build("button", { type: "button", textContent });
      button.addEventListener("click", () => {
        boxes.forEach((box) => { box.checked = axes.includes(box.value); });
        groups.value = count;
        show();
      });
      return button;
    });

    function draw(found) {
      const cell = 34, dx = 15, dy = 11, left = 30, top = 30 + N * dy, rows = H * W;
      const at = (c, row, n) => `${left + c * cell + n * dx} ${top + row * cell - n * dy}`;
      const face = (corners, index) => svg("path", {
        d: `M${corners.map((corner) => at(...corner)).join("L")}Z`, stroke: "#222", fill: `hsl(${(index * 137.5) % 360} 65% 78%)`,
      });
      const parts = [];
      for (let c = 0; c < C; c++) for (let n = 0; n < N; n++) {
        parts.push(face([[c, 0, n], [c + 1, 0, n], [c + 1, 0, n + 1], [c, 0, n + 1]], found.of(n, c, 0, 0)));
      }
      for (let row = 0; row < rows; row++) {
        const position = [Math.floor(row / W), row % W];
        for (let n = 0; n < N; n++) {
          parts.push(face([[C, row, n], [C, row + 1, n], [C, row + 1, n + 1], [C, row, n + 1]], found.of(n, C - 1, ...position)));
        }
        for (let c = 0; c < C; c++) {
          const index = found.of(0, c, ...position);
          parts.push(face([[c, row, 0], [c + 1, row, 0], [c + 1, row + 1, 0], [c, row + 1, 0]], index));
          parts.push(svg("text", { x: left + (c + 0.5) * cell, y: top + (row + 0.62) * cell, "text-anchor": "middle", "font-size": 13, fill: "#111" }, String(index + 1)));
        }
      }
      const label = (x, y, words) => svg("text", { x, y, "font-size": 13, fill: "var(--pst-color-text-base)" }, words);
      const width = left + C * cell + N * dx + 35, height = top + rows * cell + 28;
      parts.push(label(left, height - 8, `C: ${C} channels →`), label(left + C * cell + N * dx + 4, top - N * dy + 12, "N ↗"), label(2, top + 20, "H,"), label(2, top + 38, "W ↓"));
      return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
        "aria-label": `A batch as a cube of ${N} images, ${C} channels and ${H}×${W} positions; its cells share ${found.list.length} means.` }, ...parts);
    }

    function show() {
      const axes = boxes.filter((box) => box.checked).map((box) => box.value), count = Number(groups.value);
      groups.disabled = !axes.includes("C");
      const found = means(axes, count);
      cube.replaceChildren(draw(found));
      said.textContent = `Averaging over ${axes.join(", ") || "nothing"}: ${found.list.length} means of ${found.list[0].count} numbers each. This is ${usualName(axes, count)}.`;
      body.replaceChildren(...found.list.map(({ mean, count: numbers }, index) => build("tr", {},
        ...[index + 1, mean.toFixed(3), numbers].map((value) => build("td", {}, String(value))))));
    }

    for (const input of [...boxes, groups]) input.addEventListener("change", show);
    const heads = ["mean", "value", "numbers in it"].map((textContent) => build("th", { textContent, scope: "col" }));
    place.append(
      build("p", {}, "The usual ones: ", ...buttons.flatMap((button) => [button, " "])),
      build("fieldset", {}, build("legend", { textContent: "Average over" }),
        ...boxes.map((box) => build("label", {}, box, ` ${box.value}`)), build("label", {}, "groups of channels ", groups)),
      said,
      build("div", { className: "sides" }, build("div", { className: "chart" }, cube),
        build("div", { className: "scrolling means", role: "region", tabIndex: 0, "aria-label": "The means" },
          build("table", { className: "table" }, build("thead", {}, build("tr", {}, ...heads)), body))),
      build("p", { textContent: "The numbers on the front faces name the mean that a cell goes into; the batch is drawn at random, and is the same for everybody." }));
    buttons[0].click();
  }

  layersTool(document.getElementById("layers-tool"));
  axesTool(document.getElementById("axes-tool"));
  window.playground = { compute, budget, reads, keeps, means }; // for the tests
})();
