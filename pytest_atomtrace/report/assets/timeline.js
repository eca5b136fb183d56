// Kernels of a step on their streams: the median and the worst step under one zoom.
atomtrace.Timeline = (() => {
  const { data, bars, duration, make, swatch, token, drawn, showTip } = atomtrace;
  const LANE = 30, GAP = 8, AXIS = 22, HEAD = 17, STRIP = 8;
  const colourOf = (family) => data.colours[family] || data.colours.unclassified;
  const word = { median: "Median step", worst: "Worst step" };

  class Timeline {
    constructor(root, facts) {
      this.names = facts.names;
      this.root = root;
      this.host = root.querySelector(".timeline");
      this.pickedBox = root.querySelector(".picked");
      this.found = root.querySelector(".found");
      this.rows = facts.timelines.map((one) => this.row(one, facts.timelines.length));
      this.length = Math.max(1, ...this.rows.map((row) => row.length));
      this.view = [0, this.length];
      this.alone = null;
      this.wanted = "";
      this.picked = null;
      this.families();
      this.controls();
      drawn.add(() => this.draw());
      new ResizeObserver(() => this.draw()).observe(this.host);
      this.draw();
    }

    row(one, number) {
      const figure = make("figure"), caption = make("figcaption", "small");
      const title = number > 1 || one.which === "worst" ? word[one.which] : `${word[one.which]} (also the worst)`;
      caption.append(make("b", "", title), ` · ${one.rank} step ${one.step} · `, make("code", "", one.label),
        ` · GPU busy ${duration(one.busy)}, span ${duration(one.span)}, ${one.kernels.toLocaleString("en")} kernels` +
        (one.steady ? "" : " · not a steady step") + (one.left_out ? ` · ${one.left_out.toLocaleString("en")} shortest not drawn` : ""));
      const canvas = make("canvas"), tip = make("div", "tip");
      canvas.tabIndex = 0;
      canvas.setAttribute("role", "application");
      canvas.setAttribute("aria-label", `${title} of ${one.rank}: kernels on ${one.lanes.length} streams. Plus and minus zoom, arrows move, brackets step through kernels.`);
      tip.hidden = true;
      figure.append(caption, canvas, tip);
      this.host.append(figure);
      const lanes = one.lanes.map((lane) => ({ stream: lane.stream, busy: lane.busy, bars: bars(lane) }));
      const row = { one, canvas, tip, figure, lanes, length: one.length, rank: one.rank };
      row.total = new Map();
      for (const lane of lanes) for (const bar of lane.bars) {
        const sum = row.total.get(bar.name) || [0, 0];
        row.total.set(bar.name, [sum[0] + 1, sum[1] + bar.dur]);
      }
      this.listen(row);
      return row;
    }

    families() {
      const time = new Map();
      for (const lane of this.rows[0].lanes) for (const bar of lane.bars) {
        const family = this.names[bar.name][2];
        time.set(family, (time.get(family) || 0) + bar.dur);
      }
      const box = this.root.querySelector(".families");
      const buttons = [...time].sort((a, b) => b[1] - a[1]).map(([family, ns]) => {
        const button = make("button");
        button.type = "button";
        button.setAttribute("aria-pressed", "true");
        button.append(swatch(colourOf(family)), `${family} ${duration(ns)}`);
        button.addEventListener("click", () => {
          this.alone = this.alone === family ? null : family;
          buttons.forEach(([name, other]) => {
            other.classList.toggle("dim", this.alone !== null && this.alone !== name);
          });
          this.draw();
        });
        return [family, button];
      });
      for (const [, button] of buttons) button.removeAttribute("aria-pressed");
      box.replaceChildren(...buttons.map(([, button]) => button));
    }

    controls() {
      const on = (name, act) => this.root.querySelector(name).addEventListener("click", act);
      on(".zoom-in", () => this.zoom(0.5));
      on(".zoom-out", () => this.zoom(2));
      on(".pan-left", () => this.pan(-0.4));
      on(".pan-right", () => this.pan(0.4));
      on(".zoom-reset", () => this.look(0, this.length));
      this.root.querySelector(".find").addEventListener("input", (event) => {
        this.wanted = event.target.value.trim().toLowerCase();
        this.count();
        this.draw();
      });
    }

    count() {
      if (!this.wanted) { this.found.textContent = ""; return; }
      this.found.textContent = this.rows.map((row) => {
        let calls = 0, ns = 0;
        for (const [name, [n, sum]] of row.total) if (this.matches(name)) { calls += n; ns += sum; }
        return `${row.one.which}: ${calls.toLocaleString("en")} calls, ${duration(ns)}`;
      }).join(" · ");
    }

    matches(name) {
      const [raw, short] = this.names[name];
      return raw.toLowerCase().includes(this.wanted) || short.toLowerCase().includes(this.wanted);
    }

    look(from, to) {
      const width = Math.min(this.length, Math.max(200, to - from));
      const start = Math.min(Math.max(0, from), this.length - width);
      this.view = [start, start + width];
      this.draw();
    }

    zoom(factor, at = (this.view[0] + this.view[1]) / 2) {
      const [from, to] = this.view;
      this.look(at - (at - from) * factor, at + (to - at) * factor);
    }

    pan(share) {
      const move = (this.view[1] - this.view[0]) * share;
      this.look(this.view[0] + move, this.view[1] + move);
    }

    listen(row) {
      const { canvas } = row, fingers = new Map();
      let start = null, pinch = null;
      const at = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
      const time = (x) => this.view[0] + (x / canvas.clientWidth) * (this.view[1] - this.view[0]);
      canvas.addEventListener("wheel", (event) => {
        // A page that scrolls must not be caught by a chart under the pointer.
        if (document.activeElement !== canvas && !event.ctrlKey && !event.metaKey) return;
        event.preventDefault();
        if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.pan(event.deltaX / canvas.clientWidth);
        else this.zoom(Math.exp(Math.max(-120, Math.min(120, event.deltaY)) * 0.004), time(at(event)[0]));
      }, { passive: false });
      canvas.addEventListener("pointerdown", (event) => {
        canvas.focus({ preventScroll: true });
        canvas.setPointerCapture(event.pointerId);
        fingers.set(event.pointerId, at(event)[0]);
        const moves = event.pointerType === "touch" || event.shiftKey || event.button === 1;
        start = { x: at(event)[0], y: at(event)[1], view: [...this.view], moves };
        if (fingers.size === 2) { const [a, b] = [...fingers.values()]; pinch = { gap: Math.abs(a - b) || 1, at: time((a + b) / 2), view: [...this.view] }; }
      });
      canvas.addEventListener("pointermove", (event) => {
        const [x, y] = at(event);
        if (fingers.has(event.pointerId)) fingers.set(event.pointerId, x);
        if (pinch && fingers.size === 2) {
          const [a, b] = [...fingers.values()], factor = pinch.gap / (Math.abs(a - b) || 1);
          this.look(pinch.at - (pinch.at - pinch.view[0]) * factor, pinch.at + (pinch.view[1] - pinch.at) * factor);
        } else if (start && start.moves) {
          const move = ((start.x - x) / canvas.clientWidth) * (start.view[1] - start.view[0]);
          this.look(start.view[0] + move, start.view[1] + move);
        } else if (start && Math.abs(x - start.x) > 4) {
          this.drag = [Math.min(start.x, x), Math.max(start.x, x), row];
          this.draw();
        } else if (!start) this.hover(row, x, y);
      });
      const end = (event) => {
        fingers.delete(event.pointerId);
        if (fingers.size) return;
        const [x, y] = at(event);
        if (!pinch && start && Math.abs(x - start.x) <= 4 && Math.abs(y - start.y) <= 6) this.pick(row, this.hit(row, x, y));
        else if (this.drag && event.type === "pointerup") { const [a, b] = this.drag; this.drag = null; this.look(time(a), time(b)); }
        start = pinch = this.drag = null;
        this.draw();
      };
      canvas.addEventListener("pointerup", end);
      canvas.addEventListener("pointercancel", end);
      canvas.addEventListener("pointerleave", () => { row.tip.hidden = true; });
      canvas.addEventListener("dblclick", () => this.look(0, this.length));
      canvas.addEventListener("keydown", (event) => {
        const act = {
          "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2), _: () => this.zoom(2), 0: () => this.look(0, this.length), Home: () => this.look(0, this.length),
          ArrowLeft: () => this.pan(-0.25), ArrowRight: () => this.pan(0.25), "]": () => this.next(row, 1), "[": () => this.next(row, -1),
          ArrowDown: () => this.lane(row, 1), ArrowUp: () => this.lane(row, -1),
        }[event.key];
        if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        act();
      });
      canvas.addEventListener("focus", () => this.draw());
      canvas.addEventListener("blur", () => this.draw());
    }

    next(row, way) {
      const old = this.picked && this.picked.row === row ? this.picked : null;
      const lane = row.lanes[old ? old.lane : 0];
      const place = old ? old.place + way : lane.bars.findIndex((bar) => bar.start + bar.dur > this.view[0]);
      if (place < 0 || place >= lane.bars.length) return;
      this.pick(row, { lane: old ? old.lane : 0, place, bar: lane.bars[place] });
      this.follow();
    }

    lane(row, way) {
      const old = this.picked && this.picked.row === row ? this.picked : { lane: -way, bar: { start: this.view[0] } };
      const lane = old.lane + way;
      if (lane < 0 || lane >= row.lanes.length) return;
      const list = row.lanes[lane].bars;
      let place = list.findIndex((bar) => bar.start + bar.dur > old.bar.start);
      if (place < 0) place = list.length - 1;
      this.pick(row, { lane, place, bar: list[place] });
      this.follow();
    }

    follow() {
      const { start, dur } = this.picked.bar, [from, to] = this.view;
      if (start < from || start + dur > to) { const width = Math.max(to - from, dur * 1.2); this.look(start + dur / 2 - width / 2, start + dur / 2 + width / 2); }
    }

    laneAt(row, y) {
      const place = Math.floor((y - AXIS) / (HEAD + LANE + GAP));
      return place >= 0 && place < row.lanes.length ? place : -1;
    }

    hit(row, x, y) {
      const lane = this.laneAt(row, y);
      if (lane < 0) return null;
      const perPixel = (this.view[1] - this.view[0]) / row.canvas.clientWidth, at = this.view[0] + x * perPixel;
      const list = row.lanes[lane].bars;
      let low = 0, high = list.length;
      while (low < high) { const middle = (low + high) >> 1; if (list[middle].start <= at) low = middle + 1; else high = middle; }
      // A bar thinner than a pixel must be found too: the nearest within two pixels.
      let best = -1, distance = 2 * perPixel;
      for (const place of [low - 2, low - 1, low]) {
        const bar = list[place];
        if (!bar) continue;
        const off = at < bar.start ? bar.start - at : Math.max(0, at - bar.start - bar.dur);
        if (off < distance || (off === 0 && distance > 0)) { best = place; distance = off; }
      }
      return best < 0 ? null : { lane, place: best, bar: list[best] };
    }

    words(row, hit) {
      const [raw, short, family] = this.names[hit.bar.name], [calls, sum] = row.total.get(hit.bar.name);
      return { raw, short, family, text: `${duration(hit.bar.dur)} · call ${hit.bar.call + 1} of ${calls} in this step (${duration(sum)} together) · starts at +${duration(hit.bar.start)} · stream ${row.lanes[hit.lane].stream}` };
    }

    hover(row, x, y) {
      const hit = this.hit(row, x, y);
      if (!hit) { row.tip.hidden = true; return; }
      const { short, family, text } = this.words(row, hit), title = make("div");
      title.append(swatch(colourOf(family)), make("b", "", short), ` ${family}`);
      row.tip.replaceChildren(title, make("div", "", text));
      showTip(row.tip, row.figure, x, y + row.canvas.offsetTop);
    }

    pick(row, hit) {
      this.picked = hit && { row, ...hit };
      this.pickedBox.replaceChildren();
      if (hit) {
        const { raw, short, family, text } = this.words(row, hit), line = make("div");
        line.append(swatch(colourOf(family)), " ", make("b", "", short), ` · ${family} · ${row.one.which} step · ${text}`);
        this.pickedBox.append(line);
        if (raw !== short) this.pickedBox.append(make("code", "raw", raw));
      }
      this.draw();
    }

    draw() {
      if (!this.host.clientWidth) return;
      const dim = this.wanted || this.alone;
      const shown = this.names.map((name, place) => (!this.wanted || this.matches(place)) && (!this.alone || name[2] === this.alone));
      for (const row of this.rows) this.drawRow(row, dim, shown);
    }

    drawRow(row, dim, shown) {
      const { canvas, lanes } = row, px = devicePixelRatio || 1;
      const width = canvas.parentElement.clientWidth, height = AXIS + lanes.length * (HEAD + LANE + GAP) + STRIP + 4;
      if (canvas.width !== Math.round(width * px) || canvas.height !== Math.round(height * px)) {
        canvas.width = Math.round(width * px); canvas.height = Math.round(height * px); canvas.style.height = `${height}px`;
      }
      const ctx = canvas.getContext("2d");
      ctx.setTransform(px, 0, 0, px, 0, 0);
      ctx.clearRect(0, 0, width, height);
      const [from, to] = this.view, scale = width / (to - from);
      this.axis(ctx, width, height, from, scale);
      lanes.forEach((lane, place) => {
        const top = AXIS + place * (HEAD + LANE + GAP);
        ctx.font = "11px system-ui, sans-serif"; ctx.textBaseline = "middle"; ctx.textAlign = "left"; ctx.fillStyle = token("--muted");
        ctx.fillText(`stream ${lane.stream} · ${lane.bars.length.toLocaleString("en")} activities · ${duration(lane.busy)}`, 6, top + HEAD / 2);
        this.lanesBars(ctx, lane, top + HEAD, width, from, to, scale, dim, shown);
      });
      if (this.picked && this.picked.row === row) {
        const { bar, lane } = this.picked, x = (bar.start - from) * scale;
        ctx.strokeStyle = token("--text"); ctx.lineWidth = 2;
        ctx.strokeRect(x - 1, AXIS + lane * (HEAD + LANE + GAP) + HEAD - 1, Math.max(3, bar.dur * scale) + 2, LANE + 2);
      }
      if (this.drag && this.drag[2] === row) {
        ctx.fillStyle = token("--accent"); ctx.globalAlpha = 0.18;
        ctx.fillRect(this.drag[0], 0, this.drag[1] - this.drag[0], height);
        ctx.globalAlpha = 1;
      }
      // Where the view is in the whole.
      ctx.fillStyle = token("--line"); ctx.fillRect(0, height - STRIP, width, STRIP);
      ctx.fillStyle = token("--accent"); ctx.fillRect((from / this.length) * width, height - STRIP, Math.max(4, ((to - from) / this.length) * width), STRIP);
      canvas.dataset.from = Math.round(from); canvas.dataset.to = Math.round(to);
    }

    lanesBars(ctx, lane, top, width, from, to, scale, dim, shown) {
      const list = lane.bars;
      let first = 0, high = list.length;
      while (first < high) { const middle = (first + high) >> 1; if (list[middle].start + list[middle].dur < from) first = middle + 1; else high = middle; }
      ctx.font = "11px system-ui, sans-serif";
      for (let place = first; place < list.length && list[place].start <= to; place++) {
        const bar = list[place], x = (bar.start - from) * scale, wide = bar.dur * scale;
        const lit = !dim || shown[bar.name];
        ctx.globalAlpha = lit ? 1 : 0.13;
        ctx.fillStyle = colourOf(this.names[bar.name][2]);
        // A gap of a pixel tells neighbours apart once there is room for it.
        ctx.fillRect(x, top, Math.max(wide - (wide > 4 ? 1 : 0), dim && lit ? 1.5 : 0.7), LANE);
        const left = Math.max(x, 0) + 4, room = Math.min(x + wide, width) - left - 4;
        if (lit && room > 28) {
          ctx.save();
          ctx.beginPath(); ctx.rect(left, top, room, LANE); ctx.clip();
          ctx.fillStyle = "#fff"; ctx.shadowColor = "rgba(0,0,0,.55)"; ctx.shadowBlur = 2;
          ctx.fillText(this.names[bar.name][1], left, top + LANE / 2);
          ctx.restore();
        }
      }
      ctx.globalAlpha = 1;
    }

    axis(ctx, width, height, from, scale) {
      const least = 90 / scale, power = 10 ** Math.floor(Math.log10(least));
      const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= least);
      ctx.font = "11px system-ui, sans-serif"; ctx.textBaseline = "middle"; ctx.textAlign = "left";
      for (let at = Math.ceil(from / step) * step; (at - from) * scale < width; at += step) {
        const x = Math.round((at - from) * scale) + 0.5;
        ctx.strokeStyle = token("--line"); ctx.lineWidth = 1;
        ctx.beginPath(); ctx.moveTo(x, 0); ctx.lineTo(x, height - STRIP); ctx.stroke();
        ctx.fillStyle = token("--muted");
        ctx.fillText(`+${tick(at, step)}`, x + 4, AXIS / 2);
      }
    }
  }

  // Axis labels share one unit and drop zeros that say nothing.
  const tick = (ns, step) => {
    const [size, unit] = step >= 1e6 ? [1e6, "ms"] : step >= 1e5 ? [1e6, "ms"] : step >= 100 ? [1e3, "us"] : [1, "ns"];
    return `${Number((ns / size).toFixed(3))} ${unit}`;
  };

  return Timeline;
})();
