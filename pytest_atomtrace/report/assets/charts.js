// Step times per rank with budgets and baseline, and their distribution.
atomtrace.charts = (() => {
  const { sums, runs, duration, make, swatch, token, drawn, showTip } = atomtrace;
  const RANKS = ["#2f6feb", "#e0772b", "#2f9e66", "#c93a3a", "#8a62c9", "#17a3a3", "#cf4fa6", "#7f8896"];
  const METRIC = { decode: "decode.gpu_busy", draft: "draft.gpu_busy" };
  const colourOf = (place) => RANKS[place % RANKS.length];

  const axes = (label) => {
    const common = { stroke: token("--muted"), grid: { stroke: token("--grid"), width: 1 }, ticks: { stroke: token("--grid") }, font: "12px system-ui, sans-serif" };
    return [
      { ...common, size: 44, label: label[0], labelSize: 18, labelFont: "12px system-ui, sans-serif" },
      { ...common, size: 58, label: label[1], labelSize: 18, labelFont: "12px system-ui, sans-serif" },
    ];
  };

  const hline = (u, ns, colour, dash, text, side) => {
    const y = Math.round(u.valToPos(ns / 1e6, "y", true));
    const { left, top, width, height } = u.bbox;
    if (y < top || y > top + height) return;
    const { ctx } = u, px = devicePixelRatio;
    ctx.save();
    ctx.strokeStyle = colour; ctx.fillStyle = colour; ctx.lineWidth = 1.5 * px;
    ctx.setLineDash(dash.map((one) => one * px));
    ctx.beginPath(); ctx.moveTo(left, y); ctx.lineTo(left + width, y); ctx.stroke();
    ctx.font = `600 ${11 * px}px system-ui, sans-serif`;
    ctx.textAlign = side; ctx.textBaseline = "bottom";
    ctx.fillText(text, side === "left" ? left + 5 * px : left + width - 5 * px, y - 2 * px);
    ctx.restore();
  };

  // Budgets and bands that would squeeze the steps into a line are told in words instead.
  const near = (ns, low, high) => {
    const room = Math.max(3 * (high - low), 0.08 * high);
    return ns <= high + room && ns >= low - room;
  };

  class Steps {
    constructor(root, facts) {
      this.facts = facts;
      this.box = root.querySelector(".steps");
      this.binsBox = root.querySelector(".bins");
      this.kinds = [...new Set(facts.series.map((one) => one.kind))];
      this.hidden = new Set();
      this.select = root.querySelector(".kind");
      for (const kind of this.kinds) this.select.append(new Option(kind, kind));
      this.select.value = this.kinds.includes(facts.main) ? facts.main : this.kinds[0];
      this.rankSelect = root.querySelector("select.rank");
      this.legend = root.querySelector(".legend.ranks");
      this.marks = root.querySelector(".legend.marks");
      this.select.addEventListener("change", () => this.show());
      this.rankSelect.addEventListener("change", () => this.showBins());
      root.querySelector(".reset").addEventListener("click", () => this.reset());
      this.limits = root.querySelector(".limits");
      this.limits.addEventListener("click", () => {
        this.limits.setAttribute("aria-pressed", String(this.limits.getAttribute("aria-pressed") !== "true"));
        this.draw();
      });
      this.show();
      drawn.add(() => { if (this.box.clientWidth) { this.draw(); this.drawBins(); } });
      new ResizeObserver(() => this.resize()).observe(this.box);
    }

    reset() { if (this.plot) this.plot.setScale("x", { min: this.x[0], max: this.x[this.x.length - 1] || 1 }); }

    resize() {
      const width = this.box.clientWidth;
      if (!width || !this.plot || Math.abs(this.plot.width - width) < 2) return;
      this.plot.setSize({ width, height: this.plot.height });
      if (this.histogram) this.histogram.setSize({ width: this.binsBox.clientWidth, height: this.histogram.height });
    }

    show() {
      this.kind = this.select.value;
      this.series = this.facts.series.filter((one) => one.kind === this.kind).map((one) => ({
        rank: one.rank, left_out: one.left_out, step: sums(runs(one.step)), busy: sums(one.busy), bs: runs(one.bs), steady: runs(one.steady),
      }));
      this.hidden = new Set([...this.hidden].filter((rank) => this.series.some((one) => one.rank === rank)));
      this.x = [...new Set(this.series.flatMap((one) => one.step))].sort((a, b) => a - b);
      const place = new Map(this.x.map((step, i) => [step, i]));
      this.columns = this.series.map((one) => {
        const column = new Array(this.x.length).fill(null);
        one.step.forEach((step, i) => { column[place.get(step)] = one.busy[i] / 1e6; });
        return column;
      });
      this.at = this.series.map((one) => new Map(one.step.map((step, i) => [step, i])));
      this.rankSelect.replaceChildren(...this.series.map((one) => new Option(one.rank, one.rank)));
      if (this.series.some((one) => one.rank === this.facts.focus)) this.rankSelect.value = this.facts.focus;
      this.listRanks();
      this.draw();
      this.showBins();
    }

    listRanks() {
      this.legend.replaceChildren(...this.series.map((one, place) => {
        const button = make("button");
        button.type = "button";
        button.setAttribute("aria-pressed", String(!this.hidden.has(one.rank)));
        button.append(swatch(colourOf(place)), one.rank + (one.rank === this.facts.focus && this.series.length > 1 ? " (slowest)" : ""));
        button.addEventListener("click", () => {
          if (!this.hidden.delete(one.rank)) this.hidden.add(one.rank);
          const shown = !this.hidden.has(one.rank);
          button.setAttribute("aria-pressed", String(shown));
          if (this.plot) this.plot.setSeries(this.order.indexOf(place) + 1, { show: shown });
        });
        return button;
      }));
    }

    draw() {
      if (this.plot) this.plot.destroy();
      this.plot = null;
      if (this.x.length < 2) { this.alone(); return; }
      const all = this.series.flatMap((one) => one.busy);
      const low = Math.min(...all), high = Math.max(...all);
      const wanted = this.limits.getAttribute("aria-pressed") === "true";
      const asked = wanted ? this.facts.budgets.filter((one) => one[0] === this.kind) : [];
      this.lines = asked.filter((one) => near(one[3], low, high));
      const band = wanted ? this.facts.bands.find((one) => one[0] === METRIC[this.kind]) : null;
      this.band = band && near(band[3], low, high) ? band : null;
      const seen = [low, high, ...this.lines.map((one) => one[3])];
      if (this.band) seen.push(this.band[1], near(this.band[4], low, high) ? this.band[4] : this.band[2]);
      const bottom = Math.min(...seen) / 1e6, top = Math.max(...seen) / 1e6;
      const pad = (top - bottom || top * 0.02 || 1) * 0.08;
      // The slowest rank is drawn last, on top of the others.
      this.order = this.series.map((_, i) => i).sort((a, b) => (this.series[a].rank === this.facts.focus) - (this.series[b].rank === this.facts.focus));
      const many = this.x.length > 400;
      const options = {
        width: Math.max(220, this.box.clientWidth), height: 260,
        scales: { x: { time: false }, y: { range: (u, min, max) => this.range(u, min, max, bottom - pad, top + pad) } },
        axes: axes([`${this.kind} step (index on its rank)`, "GPU busy, ms"]),
        cursor: { points: { size: 6 }, drag: { x: true, y: false } },
        series: [{}, ...this.order.map((i) => ({
          label: this.series[i].rank, stroke: colourOf(i), width: this.series[i].rank === this.facts.focus ? 1.6 : 0.9, spanGaps: true,
          show: !this.hidden.has(this.series[i].rank), points: { show: !many && this.x.length < 80, size: 4 },
        }))],
        hooks: { drawClear: [(u) => this.under(u)], draw: [(u) => this.over(u)], setCursor: [(u) => this.tell(u)] },
      };
      this.box.replaceChildren();
      this.plot = new uPlot(options, [this.x, ...this.order.map((i) => this.columns[i])], this.box);
      this.tip = make("div", "tip");
      this.tip.hidden = true;
      this.box.append(this.tip);
      this.explain(asked, band);
    }

    alone() {
      const lines = this.series.map((one) => `${one.rank} ${duration(one.busy[0])}`);
      this.box.replaceChildren(make("p", "empty", `A single ${this.kind} step: ${lines.join(", ")}`));
      this.marks.replaceChildren();
    }

    range(u, min, max, bottom, top) {
      const whole = u.scales.x.min == null || (u.scales.x.min <= this.x[0] && u.scales.x.max >= this.x[this.x.length - 1]);
      if (whole || min == null) return [bottom, top];
      const pad = (max - min || max * 0.02 || 1) * 0.1;
      return [min - pad, max + pad];
    }

    // Behind the lines: which steps are steady on the slowest rank, and the baseline's launches.
    under(u) {
      const one = this.series.find((row) => row.rank === this.facts.focus) || this.series[0];
      const { ctx } = u, { left, top, width, height } = u.bbox;
      ctx.save();
      ctx.beginPath(); ctx.rect(left, top, width, height); ctx.clip();
      ctx.fillStyle = token("--steady");
      for (let i = 0; i < one.step.length; i++) {
        if (!one.steady[i]) continue;
        const from = i;
        while (i + 1 < one.step.length && one.steady[i + 1]) i++;
        const x0 = u.valToPos(one.step[from] - 0.5, "x", true), x1 = u.valToPos(one.step[i] + 0.5, "x", true);
        ctx.fillRect(x0, top, x1 - x0, height);
      }
      if (this.band) {
        ctx.fillStyle = token("--band");
        const y0 = u.valToPos(this.band[2] / 1e6, "y", true), y1 = u.valToPos(this.band[1] / 1e6, "y", true);
        ctx.fillRect(left, y0 - 1, width, Math.max(2, y1 - y0 + 2));
      }
      ctx.restore();
    }

    over(u) {
      for (const [, , statistic, limit, measured] of this.lines) {
        hline(u, limit, token(measured > limit ? "--fail" : "--muted"), [6, 4], `${statistic} budget ${duration(limit)}`, "right");
      }
      if (this.band) hline(u, this.band[4], token("--pass"), [2, 3], `baseline limit ${duration(this.band[4])}`, "left");
    }

    explain(asked, band) {
      const keys = [];
      const key = (mark, text) => { const line = make("span", "key"); line.append(mark, text); keys.push(line); };
      if (this.series.some((one) => one.steady.includes(1))) key(make("span", "steadykey"), "steady steps: the ones that budgets judge");
      if (this.band) key(make("span", "bandkey"), `baseline launches ${duration(band[1])} – ${duration(band[2])}`);
      for (const one of asked) {
        if (!this.lines.includes(one)) key(make("span", "dash"), `${one[2]} budget ${duration(one[3])}, far from these steps`);
      }
      if (band && !this.band) key(make("span", "bandkey"), `baseline ${duration(band[3])}, far from these steps`);
      const missing = this.series.reduce((sum, one) => sum + one.left_out, 0);
      if (missing) key(make("span"), `${missing.toLocaleString("en")} steps between the extremes are not drawn`);
      key(make("span"), "the axis does not start at zero");
      this.marks.replaceChildren(...keys);
    }

    tell(u) {
      const { idx, left, top } = u.cursor;
      if (idx == null || left < 0) { this.tip.hidden = true; return; }
      const step = this.x[idx];
      const rows = this.series.map((one, place) => [one, place, this.at[place].get(step)]).filter(([one, , i]) => i !== undefined && !this.hidden.has(one.rank));
      if (!rows.length) { this.tip.hidden = true; return; }
      rows.sort((a, b) => b[0].busy[b[2]] - a[0].busy[a[2]]);
      const [first, , i] = rows[0];
      const title = make("div");
      title.append(make("b", "", `step ${step}`), ` · bs ${first.bs[i]}${first.steady[i] ? " · steady" : ""}`);
      this.tip.replaceChildren(title, ...rows.slice(0, 9).map(([one, place, at]) => {
        const line = make("div");
        line.append(swatch(colourOf(place)), `${one.rank} ${duration(one.busy[at])}`);
        return line;
      }));
      const plotLeft = u.over.offsetLeft, plotTop = u.over.offsetTop;
      showTip(this.tip, this.box, plotLeft + left, plotTop + top);
    }

    showBins() {
      this.bin = this.facts.bins.find((one) => one.kind === this.kind && one.rank === this.rankSelect.value);
      this.drawBins();
    }

    drawBins() {
      if (this.histogram) this.histogram.destroy();
      this.histogram = null;
      this.binsBox.replaceChildren();
      const one = this.bin;
      const steps = one ? one.counts.reduce((sum, count) => sum + count, 0) : 0;
      if (steps < 5) { this.binsBox.append(make("p", "empty", "Too few steps for a distribution.")); return; }
      const x = one.counts.map((_, i) => (one.low + (i + 0.5) * one.width) / 1e6);
      const half = one.width / 2e6;
      const marks = ["p50", "p90", "p99"].map((name, i) => [name, one.marks[i] / 1e6, one.firm.includes(name)]);
      const [across, up] = axes([`GPU busy, ms${one.max >= one.low + one.counts.length * one.width ? ` (last bar: all above, to ${duration(one.max)})` : ""}`, one.steady ? "steady steps" : "steps"]);
      up.incrs = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];
      const options = {
        width: Math.max(200, this.binsBox.clientWidth), height: 260,
        scales: { x: { time: false, range: () => [x[0] - half, x[x.length - 1] + half] }, y: { range: (u, min, max) => [0, max * 1.12 || 1] } },
        axes: [across, up],
        legend: { show: false }, cursor: { drag: { x: false, y: false }, points: { show: false } },
        series: [{}, { label: "steps", fill: token("--accent"), stroke: token("--accent"), width: 0, paths: uPlot.paths.bars({ size: [0.94, Infinity, 1], align: 0 }), points: { show: false } }],
        hooks: {
          draw: [(u) => this.verticals(u, marks)],
          setCursor: [(u) => {
            const { idx, left, top } = u.cursor;
            if (idx == null || left < 0) { tip.hidden = true; return; }
            tip.textContent = `${duration(one.low + idx * one.width)} to ${duration(one.low + (idx + 1) * one.width)}: ${one.counts[idx]} step${one.counts[idx] === 1 ? "" : "s"}`;
            showTip(tip, this.binsBox, u.over.offsetLeft + left, u.over.offsetTop + top);
          }],
        },
      };
      this.histogram = new uPlot(options, [x, one.counts], this.binsBox);
      const tip = make("div", "tip");
      tip.hidden = true;
      this.binsBox.append(tip);
    }

    // Labels of close quantiles go one below the other.
    verticals(u, marks) {
      const { ctx } = u, px = devicePixelRatio, { left, top, width, height } = u.bbox;
      ctx.save();
      ctx.font = `600 ${11 * px}px system-ui, sans-serif`;
      ctx.textBaseline = "top";
      marks.forEach(([name, ms, firm], i) => {
        const x = Math.round(u.valToPos(ms, "x", true));
        if (x < left || x > left + width) return;
        ctx.strokeStyle = ctx.fillStyle = token(firm ? "--text" : "--muted");
        ctx.lineWidth = px;
        ctx.setLineDash(firm ? [] : [3 * px, 3 * px]);
        ctx.beginPath(); ctx.moveTo(x, top); ctx.lineTo(x, top + height); ctx.stroke();
        const right = x > left + width - 50 * px;
        ctx.textAlign = right ? "right" : "left";
        ctx.fillText(firm ? name : `${name}*`, x + (right ? -4 : 4) * px, top + (2 + i * 14) * px);
      });
      ctx.restore();
    }
  }

  return { Steps };
})();
