/* The report's page: one JSON value in, tiles, curves and tables out. Text of a run reaches the page as text nodes
   only. Everything works from a file:// address. */
'use strict';
(() => {
  const { runs, written } = JSON.parse(document.getElementById('data').textContent);
  const $ = id => document.getElementById(id);
  const many = runs.length > 1;

  /* el('td', {class: 'num'}, 'text' or node, ...) */
  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [k, v] of Object.entries(attributes || {}))
      if (k.startsWith('on')) node.addEventListener(k.slice(2), v); else if (v !== null) node.setAttribute(k, v);
    for (const c of children.flat()) if (c !== null && c !== undefined && c !== false) node.append(c);
    return node;
  }

  /* ---- numbers ---- */
  const known = x => typeof x === 'number' && isFinite(x);
  const fixed = (x, digits) => known(x) ? x.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits }) : '–';
  const whole = x => fixed(x, 0);
  function short(x) { /* 6,291,456 -> 6.29 M */
    if (!known(x)) return '–';
    for (const [unit, size] of [['T', 1e12], ['B', 1e9], ['M', 1e6], ['k', 1e3]])
      if (Math.abs(x) >= size * (unit === 'k' ? 10 : 1)) return (x / size).toPrecision(3).replace(/e.*/, '') + ' ' + unit;
    return whole(x);
  }
  function bytes(x) {
    if (!known(x)) return '–';
    for (const [unit, size] of [['GiB', 2 ** 30], ['MiB', 2 ** 20], ['KiB', 1024]]) if (x >= size) return (x / size).toFixed(x / size < 10 ? 2 : 1) + ' ' + unit;
    return x + ' B';
  }
  function duration(s) {
    if (!known(s)) return '–';
    if (s < 60) return s.toFixed(1) + ' s';
    const m = Math.floor(s / 60);
    return m < 60 ? `${m} min ${Math.round(s % 60)} s` : `${Math.floor(m / 60)} h ${m % 60} min`;
  }
  const last = a => a[a.length - 1];
  function median(a) {
    const s = a.filter(known).sort((x, y) => x - y);
    return s.length ? s[s.length >> 1] : undefined;
  }
  const unit = text => { const i = text.indexOf(' '); return i < 0 ? [text] : [text.slice(0, i), el('small', null, text.slice(i + 1))]; };

  /* ---- what is derived from a run ---- */
  for (const run of runs) {
    const L = run.log;
    run.facts = run.facts || {};
    run.recipe = (run.lock && run.lock.recipe) || {};
    run.environment = (run.lock && run.lock.environment) || {};
    run.name = L.run || last(run.dir.split('/'));
    run.loss = last(L.loss.filter(known));
    run.eval = L.eval.length ? last(L.eval)[3] : undefined;
    run.best = L.eval.map(p => p[3]).filter(known).reduce((a, b) => Math.min(a, b), Infinity);
    run.steps = L.step.length ? last(L.step) : 0;
    run.tokens = L.tokens.length ? last(L.tokens) : 0;
    run.seconds = L.seconds.length ? last(L.seconds) : undefined;
    run.speed = median(L.tokens_per_second);
    run.peak = L.peak_bytes.reduce((a, b) => Math.max(a, b), 0) || undefined;
    const f = run.facts;
    run.share = f.flops_per_token && f.peak_gflops && run.speed ? run.speed * f.flops_per_token / (f.peak_gflops * 1e9) : undefined;
    run.replays = run.checks.filter(c => typeof c.ok === 'boolean');
  }

  /* ---- head ---- */
  const architecture = r => {
    const m = r.recipe.model;
    if (!m) return r.recipe.model_name_or_path ? 'from ' + r.recipe.model_name_or_path : '';
    return [m.model_type, m.num_hidden_layers && m.num_hidden_layers + ' layers', m.hidden_size && 'width ' + m.hidden_size].filter(Boolean).join(', ');
  };
  /* Tasks whose loss is the mean of -log p over trained tokens; of any other, its objective says what it is. */
  const likelihood = { pretrain: 'Pretraining', sft: 'Supervised fine-tuning' };
  const inNats = r => !r.recipe.task || r.recipe.task in likelihood;
  const describe = r => [
    likelihood[r.recipe.task] || (r.recipe.task ? 'Training (' + r.recipe.task + ')' : 'Training'),
    r.recipe.use_peft ? 'LoRA rank ' + r.recipe.lora_r : null, architecture(r),
    r.steps ? whole(r.steps) + ' steps' : null, r.recipe.precision, duration(r.seconds)
  ].filter(Boolean).join(' · ');
  $('title').textContent = many ? runs.length + ' runs, side by side' : runs[0].name;
  document.title = (many ? runs.map(r => r.name).join(', ') : runs[0].name) + ' · hone';
  $('subtitle').textContent = many ? runs.map(r => r.name).join(' · ') : describe(runs[0]);
  function badge(ok, text) { $('badges').append(el('span', { class: ok ? 'badge' : 'badge bad', title: text }, text)); }
  for (const r of runs) {
    const who = many ? r.name + ': ' : '';
    if (r.log.broken) badge(false, who + r.log.broken); else badge(true, who + 'hash chain of ' + whole(r.log.rows) + ' log lines holds');
    if (r.replays.length) {
      const failed = r.replays.filter(c => !c.ok).length;
      badge(!failed, who + (failed ? failed + ' of ' + r.replays.length + ' checks failed' : r.replays.length + (r.replays.length === 1 ? ' check' : ' checks') + ' passed'));
    }
  }

  /* ---- tiles (one run) or a table (several) ---- */
  function tile(name, value, more, meter) {
    $('tiles').append(el('div', { class: 'tile' }, el('div', { class: 'name' }, name), el('div', { class: 'value' }, value),
      more ? el('div', { class: 'more' }, more) : null,
      known(meter) ? el('div', { class: 'meter' }, el('i', { style: `width:${Math.min(100, 100 * meter).toFixed(1)}%` })) : null));
  }
  function oneTiles(r) {
    const f = r.facts, trainable = known(f.trainable_parameters) && f.trainable_parameters !== f.parameters;
    if (known(f.parameters)) tile('Parameters', unit(short(f.parameters)), trainable ? `${short(f.trainable_parameters)} trained (${(100 * f.trainable_parameters / f.parameters).toFixed(2)} %)` : 'all trained');
    tile('Tokens trained', unit(short(r.tokens)), known(f.tokens_total) && f.tokens_total ? `${(r.tokens / f.tokens_total).toFixed(2)} passes over ${short(f.tokens_total)}` : whole(r.steps) + ' steps');
    tile('Final loss', [fixed(r.loss, 3), inNats(r) ? el('small', null, 'nats') : null], inNats(r) ? `perplexity ${fixed(Math.exp(r.loss), 2)}` : 'of the task ' + r.recipe.task);
    if (known(r.eval)) {
      const rivals = [['unigram', f.unigram_nats], ['bigram', f.bigram_nats]].filter(x => known(x[1]));
      tile('Validation loss', [fixed(r.eval, 3), el('small', null, 'nats')], rivals.length ? rivals.map(x => `${x[0]} ${fixed(x[1], 2)}`).join(', ') : `perplexity ${fixed(Math.exp(r.eval), 2)}`);
    }
    tile('Tokens per second', unit(short(r.speed)), 'median of all steps');
    if (known(r.share)) tile('Share of peak', [fixed(100 * r.share, 0), el('small', null, '%')], `of ${whole(f.peak_gflops)} GFLOP/s measured`, r.share);
    tile('Peak memory', unit(bytes(r.peak)), known(f.planned_peak_bytes) ? `planned ${bytes(f.planned_peak_bytes)}` : null);
    tile('Wall time', unit(duration(r.seconds)), r.environment.machine ? `${r.environment.machine.threads} thread${r.environment.machine.threads === 1 ? '' : 's'}, ${r.environment.machine.isa}` : null);
  }
  function cell(value, attributes) { return el('td', attributes, value); }
  function manyTable() {
    const best = Math.min(...runs.map(r => known(r.eval) ? r.eval : Infinity));
    const rows = runs.map((r, i) => el('tr', null, el('td', null, el('span', { style: 'color:' + colour(i) }, '● '), r.name),
      cell(short(r.facts.parameters), { class: 'num' }), cell(short(r.facts.trainable_parameters), { class: 'num' }), cell(whole(r.steps), { class: 'num' }), cell(short(r.tokens), { class: 'num' }),
      cell(fixed(r.loss, 4), { class: 'num' }), cell(fixed(r.eval, 4), { class: r.eval === best ? 'num best' : 'num' }),
      cell(short(r.speed), { class: 'num' }), cell(bytes(r.peak), { class: 'num' }), cell(duration(r.seconds), { class: 'num' })));
    const heads = ['Run', 'Parameters', 'Trained', 'Steps', 'Tokens', 'Loss', 'Validation', 'Tokens/s', 'Peak memory', 'Wall time'];
    $('tiles').className = 'panel';
    $('tiles').append(el('h2', null, 'Summary'), el('div', { class: 'scroll' }, el('table', null,
      el('thead', null, el('tr', null, heads.map((h, i) => el('th', { class: i ? 'num' : null }, h)))), el('tbody', null, rows))));
  }

  /* ---- theme ---- */
  const dark = matchMedia('(prefers-color-scheme: dark)');
  let theme = 'auto';
  try { theme = localStorage.getItem('hone-theme') || 'auto'; } catch (_) { /* file:// may refuse storage */ }
  const isDark = () => theme === 'dark' || (theme === 'auto' && dark.matches);
  const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const palette = { light: ['#2f6690', '#d17a22', '#5b8c5a', '#8a5a9e', '#b23a48', '#3a9188', '#7a6a53'], dark: ['#7fb2dc', '#f0a860', '#93c690', '#c39ad6', '#f2808d', '#79cfc5', '#c4b295'] };
  const colour = i => palette[isDark() ? 'dark' : 'light'][i % 7];
  function paint() {
    document.documentElement.dataset.theme = isDark() ? 'dark' : 'light';
    $('theme').textContent = { auto: 'Auto', light: 'Light', dark: 'Dark' }[theme];
  }
  $('theme').addEventListener('click', () => {
    theme = { auto: 'light', light: 'dark', dark: 'auto' }[theme];
    try { localStorage.setItem('hone-theme', theme); } catch (_) { /* as above */ }
    redraw();
  });
  dark.addEventListener('change', () => redraw());

  /* ---- curves ---- */
  const points = runs.reduce((n, r) => Math.max(n, r.log.step.length), 0);
  const view = { axis: 'step', xscale: 'linear', yscale: 'linear', smooth: points < 80 ? 0 : points < 400 ? 0.6 : 0.8 };
  const axisName = { step: 'step', tokens: 'tokens', seconds: 'minutes' };
  const xOf = (L, i) => view.axis === 'seconds' ? L.seconds[i] / 60 : L[view.axis][i];
  const evalX = p => view.axis === 'step' ? p[0] : view.axis === 'tokens' ? p[1] : p[2] / 60;
  const visible = p => known(p.y) && (view.xscale === 'linear' || p.x > 0);
  const series = (L, column, scale) => L[column].map((y, i) => ({ x: xOf(L, i), y: known(y) ? y * (scale || 1) : NaN })).filter(visible);
  function smoothed(data, weight) { /* exponential means from both sides, so that the curve does not lag */
    const pass = from => {
      let mean = 0, sum = 0;
      return from.map(({ y }) => {
        mean = weight * mean + (1 - weight) * y, sum = weight * sum + (1 - weight);
        return mean / sum;
      });
    };
    const ahead = pass(data), back = pass(data.slice().reverse()).reverse();
    return data.map(({ x }, i) => ({ x, y: (ahead[i] + back[i]) / 2 }));
  }
  const line = (label, data, color, more) => Object.assign({ label, data, borderColor: color, backgroundColor: color, borderWidth: 1.8, pointRadius: 0, pointHitRadius: 8, tension: 0, spanGaps: true }, more);
  const legend = [];
  function lossSets() {
    const sets = [], xs = [];
    legend.length = 0;
    runs.forEach((r, i) => {
      const base = many ? colour(i) : css('--steel'), raw = series(r.log, 'loss'), name = many ? r.name + ', ' : '';
      raw.forEach(p => xs.push(p.x));
      if (view.smooth > 0) sets.push(line(name + 'training, each step', raw, base + '66', { borderWidth: 1, quiet: true, order: 9 }));
      sets.push(line(name + 'training', view.smooth > 0 ? smoothed(raw, view.smooth) : raw, base, { borderWidth: 2, order: 3 }));
      legend.push(['line', base, name + 'training']);
      const points = r.log.eval.map(p => ({ x: evalX(p), y: known(p[3]) ? p[3] : NaN })).filter(visible);
      if (!points.length) return;
      const ink = many ? base : css('--ember');
      points.forEach(p => xs.push(p.x));
      sets.push(line(name + 'validation', points, ink, { borderWidth: many ? 1.2 : 2, borderDash: many ? [2, 3] : [], pointRadius: points.length > 60 ? 1.5 : 3.2, pointBackgroundColor: ink, pointBorderColor: css('--card'), pointBorderWidth: 1, order: 1 }));
      legend.push(['dot', ink, name + 'validation']);
    });
    const f = runs[0].facts;
    if (!many && xs.length)
      for (const [name, y] of [['unigram', f.unigram_nats], ['bigram', f.bigram_nats]]) {
        if (!known(y)) continue;
        const lo = xs.reduce((a, b) => Math.min(a, b)), hi = xs.reduce((a, b) => Math.max(a, b));
        sets.push(line(name + ' model', [{ x: lo, y }, { x: hi, y }], css('--faint'), { borderWidth: 1.2, borderDash: [5, 5], mark: name + ' ' + fixed(y, 2), quiet: true, order: 8 }));
      }
    return sets;
  }
  const crosshair = {
    id: 'crosshair',
    afterDatasetsDraw(chart) {
      const { ctx, chartArea: a } = chart, active = chart.tooltip && chart.tooltip.getActiveElements();
      ctx.save();
      if (active && active.length) {
        const x = Math.round(active[0].element.x) + .5;
        ctx.strokeStyle = css('--faint'), ctx.lineWidth = 1, ctx.setLineDash([2, 3]);
        ctx.beginPath(), ctx.moveTo(x, a.top), ctx.lineTo(x, a.bottom), ctx.stroke();
      }
      ctx.font = '11.5px ' + css('--sans'), ctx.fillStyle = css('--soft'), ctx.textAlign = 'right';
      for (const set of chart.data.datasets) if (set.mark) ctx.fillText(set.mark, a.right - 2, chart.scales.y.getPixelForValue(set.data[0].y) - 5);
      ctx.restore();
    }
  };
  const tick = v => v === 0 ? '0' : Math.abs(v) < 1e-2 ? v.toExponential(1).replace('.0e', 'e') : Math.abs(v) >= 1e6 ? +(v / 1e6).toPrecision(4) + ' M' : Math.abs(v) >= 1e3 ? +(v / 1e3).toPrecision(4) + ' k' : String(+v.toPrecision(4));
  function logTick(v, i, all) { /* 1, 2, 5 of each decade, or every mark where there are few */
    const lead = Math.round(v / 10 ** Math.floor(Math.log10(v) + 1e-9));
    return all.length <= 9 || lead === 1 || lead === 2 || lead === 5 ? tick(v) : null;
  }
  function options(yscale, fromZero, least) {
    const scale = (type, more) => Object.assign({
      type: type === 'log' ? 'logarithmic' : 'linear', border: { display: false },
      grid: { color: css('--hair'), drawBorder: false, tickLength: 0 },
      ticks: { color: css('--faint'), padding: 8, maxRotation: 0, autoSkipPadding: 24, callback: type === 'log' ? logTick : tick, font: { size: 11.5 } }
    }, more);
    return {
      animation: false, parsing: false, normalized: true, maintainAspectRatio: false, responsive: true, layout: { padding: { right: 4, top: 6 } },
      interaction: { mode: 'nearest', axis: 'x', intersect: false },
      scales: {
        x: scale(view.xscale, { bounds: 'data', beginAtZero: true, title: { display: true, text: axisName[view.axis], color: css('--faint'), font: { size: 11.5 } } }),
        y: scale(yscale, { beginAtZero: !!fromZero, grace: fromZero ? '8%' : 0, min: yscale === 'log' ? least : undefined })
      },
      plugins: {
        legend: { display: false }, decimation: { enabled: false },
        tooltip: {
          backgroundColor: css('--ink'), titleColor: css('--paper'), bodyColor: css('--paper'), padding: 10, cornerRadius: 8, boxPadding: 5, usePointStyle: true,
          filter: item => !item.dataset.quiet, titleFont: { weight: '600' },
          callbacks: {
            title: items => items.length ? axisName[view.axis] + ' ' + (view.axis === 'seconds' ? items[0].parsed.x.toFixed(2) : whole(items[0].parsed.x)) : '',
            label: item => ' ' + item.dataset.label + '  ' + (Math.abs(item.parsed.y) < 1e-2 ? item.parsed.y.toExponential(3) : item.parsed.y.toLocaleString('en-US', { maximumSignificantDigits: 6 }))
          }
        }
      }
    };
  }
  const lowest = sets => sets.flatMap(s => s.data).reduce((low, p) => p.y > 0 && p.y < low ? p.y : low, Infinity);
  const charts = {};
  function draw(id, sets, yscale, fromZero) {
    if (charts[id]) charts[id].destroy();
    charts[id] = new Chart($(id), { type: 'line', data: { datasets: sets }, options: options(yscale, fromZero, 0.95 * lowest(sets)), plugins: [crosshair] });
  }
  const small = (column, label, scale) => runs.map((r, i) => line(many ? r.name : label, series(r.log, column, scale), many ? colour(i) : css('--steel'), { borderWidth: 1.5 }));
  /* What an objective reports besides its loss: a chart each. */
  const metrics = [...new Set(runs.flatMap(r => Object.keys(r.log.metrics)))];
  const heading = name => name === 'aux_loss' ? 'Balancing loss of the experts' : name[0].toUpperCase() + name.slice(1).replaceAll('_', ' ');
  for (const name of metrics)
    $('curves').append(el('div', { class: 'panel' }, el('h3', null, heading(name)), el('div', { class: 'chart' }, el('canvas', { id: 'metric-' + name }))));
  const measured = name => runs.map((r, i) => line(many ? r.name : name, r.log.metrics[name] ? series(Object.assign({ measured: r.log.metrics[name] }, r.log), 'measured') : [], many ? colour(i) : css('--steel'), { borderWidth: 1.5 }));
  function drawAll() {
    Chart.defaults.font.family = css('--sans');
    draw('loss', lossSets(), view.yscale);
    draw('lr', small('lr', 'learning rate'), 'linear', true);
    draw('grad_norm', small('grad_norm', 'gradient norm'), 'linear', true);
    draw('speed', small('tokens_per_second', 'tokens/s'), 'linear', true);
    const room = runs.some(r => r.peak >= 2 ** 30) ? 2 ** 30 : 2 ** 20;
    $('memory-unit').textContent = room === 2 ** 30 ? 'GiB' : 'MiB';
    const memory = small('peak_bytes', 'peak memory', 1 / room);
    const planned = runs[0].facts.planned_peak_bytes;
    if (!many && known(planned) && memory[0].data.length)
      memory.push(line('planned', [memory[0].data[0], last(memory[0].data)].map(p => ({ x: p.x, y: planned / room })), css('--faint'), { borderWidth: 1.2, borderDash: [5, 5], mark: 'planned', quiet: true }));
    draw('memory', memory, 'linear', true);
    for (const name of metrics) draw('metric-' + name, measured(name), 'linear');
    $('legend').replaceChildren(...legend.map(([kind, color, text]) => el('span', null, el('i', { class: kind, style: 'color:' + color + (kind === 'dot' ? '' : ';border-color:' + color) }), text)));
  }
  function choice(id, key, choices) {
    for (const [value, label] of choices)
      $(id).append(el('button', { type: 'button', 'aria-pressed': String(view[key] === value), onclick: event => {
        view[key] = value;
        for (const b of $(id).children) b.setAttribute('aria-pressed', String(b === event.currentTarget));
        drawAll();
      } }, label));
  }
  function redraw() {
    paint(), drawAll(), details();
    if (many) $('tiles').replaceChildren(), manyTable();
  }
  choice('axis', 'axis', [['step', 'steps'], ['tokens', 'tokens'], ['seconds', 'time']]);
  choice('xscale', 'xscale', [['linear', 'x linear'], ['log', 'x log']]);
  choice('yscale', 'yscale', [['linear', 'y linear'], ['log', 'y log']]);
  $('smooth').value = view.smooth;
  $('smooth').addEventListener('input', () => { view.smooth = +$('smooth').value; drawAll(); });
  const stride = runs.reduce((n, r) => Math.max(n, r.log.stride), 1);
  const others = [...new Set(runs.filter(r => !inNats(r)).map(r => r.recipe.task))];
  $('loss-note').textContent = 'Mean over trained tokens, in nats' + (others.length ? '; the training loss of ' + others.join(', ') + ' is what that task minimises.' : '.') + (metrics.includes('aux_loss') ? ' A mixture’s training loss includes its balancing loss.' : '') + (stride > 1 ? ` Each point is the mean of ${stride} steps.` : '');

  /* ---- what a run left ---- */
  function samples(run) {
    const steps = [...new Set(run.samples.map(s => s.step))], body = el('div'), chips = el('div', { class: 'steps' });
    function show(step) {
      for (const b of chips.children) b.setAttribute('aria-pressed', String(b.textContent === whole(step)));
      body.replaceChildren(...run.samples.filter(s => s.step === step).map(s => {
        const text = String(s.text), prompt = String(s.prompt || '');
        return el('div', { class: 'sample' }, el('b', null, prompt), text.startsWith(prompt) ? text.slice(prompt.length) : text);
      }));
    }
    for (const step of steps) chips.append(el('button', { type: 'button', onclick: () => show(step) }, whole(step)));
    show(last(steps));
    return el('section', { class: 'panel' }, el('h2', null, 'Samples'), el('p', { class: 'note' }, 'What the model wrote after so many steps; the prompt is coloured.'), chips, body);
  }
  function checkpoints(run) {
    const rows = run.checkpoints.map(c => el('tr', null, cell(whole(c.step), { class: 'num' }), cell(bytes(c.bytes), { class: 'num' }), cell(c.sha256, { class: 'hash' })));
    return el('section', { class: 'panel' }, el('h2', null, 'Checkpoints'), el('p', { class: 'note' }, 'Each manifest names the SHA-256 of every file and tensor, and of the manifest before it.'),
      el('div', { class: 'scroll' }, el('table', null, el('thead', null, el('tr', null, el('th', { class: 'num' }, 'Step'), el('th', { class: 'num' }, 'Size'), el('th', null, 'SHA-256 of manifest.json'))), el('tbody', null, rows))));
  }
  const plain = v => v === null || v === undefined ? '' : typeof v === 'object' ? JSON.stringify(v) : typeof v === 'number' ? (Number.isInteger(v) ? whole(v) : String(+v.toPrecision(7))) : String(v);
  function checks(run) {
    const keys = [...new Set(run.checks.flatMap(c => Object.keys(c)))];
    const show = (k, v) => typeof v === 'boolean' ? el('td', { class: v ? 'yes' : 'no' }, k === 'ok' ? (v ? 'equal' : 'differs') : String(v)) : el('td', { class: /^[0-9a-f]{64}$/.test(String(v)) ? 'hash' : null }, plain(v));
    return el('section', { class: 'panel' }, el('h2', null, 'Verification'), el('p', { class: 'note' }, 'Steps computed again from published checkpoints, and their hashes compared.'),
      el('div', { class: 'scroll' }, el('table', null, el('thead', null, el('tr', null, keys.map(k => el('th', null, k === 'ok' ? 'verdict' : k)))), el('tbody', null, run.checks.map(c => el('tr', null, keys.map(k => show(k, c[k]))))))));
  }
  function pairs(object) {
    return el('table', null, el('tbody', null, Object.entries(object || {}).map(([k, v]) => el('tr', null, el('td', { class: 'key' }, k), el('td', { class: 'mono' }, typeof v === 'number' ? String(+v.toPrecision(9)) : plain(v))))));
  }
  function made(run) {
    const e = run.environment, files = run.lock.files || [];
    const important = ['task', 'model_name_or_path', 'tokenizer', 'precision', 'numerics', 'seed', 'max_seq_length', 'global_batch_size', 'reduction_groups', 'optim', 'learning_rate', 'lr_scheduler_type', 'warmup_steps', 'weight_decay', 'max_grad_norm'].concat(run.recipe.use_peft ? ['lora_r', 'lora_alpha', 'lora_target_modules'] : []);
    const recipe = Object.fromEntries(important.filter(k => k in run.recipe).map(k => [k, run.recipe[k]]));
    const machine = Object.assign({}, e.build, e.machine);
    if (known(machine.memory_bytes)) machine.memory = bytes(machine.memory_bytes), delete machine.memory_bytes;
    return el('section', { class: 'panel' }, el('h2', null, 'What it was made from'),
      el('div', { class: 'columns' }, el('div', null, el('h3', null, 'Recipe'), pairs(recipe)), el('div', null, el('h3', null, 'Program and machine'), pairs(machine))),
      files.length ? el('details', { open: files.length <= 8 ? '' : null }, el('summary', null, `Files (${files.length}) and their hashes`), el('div', { class: 'scroll' }, el('table', null, el('tbody', null, files.map(f => el('tr', null, el('td', { class: 'key' }, f.role), el('td', { class: 'mono' }, f.path), el('td', { class: 'num' }, bytes(f.bytes)), el('td', { class: 'hash' }, f.sha256))))))) : null,
      el('details', null, el('summary', null, 'recipe.lock, whole'), el('pre', null, run.lock_text)));
  }
  const quote = text => /^[\w@%+=:,./-]+$/.test(text) ? text : "'" + text.replace(/'/g, "'\\''") + "'";
  function rebuild(run) {
    const build = run.environment.build || {}, dir = run.dir, lines = [];
    if (build.commit) lines.push(['# the program as it was' + (build.diff && build.diff !== 'clean' ? ', with the changes that hash to ' + build.diff.slice(0, 12) : ''), 'git checkout ' + quote(build.commit) + ' && make']);
    lines.push(['# this page’s files, hashes and log', './hone verify ' + quote(dir)]);
    lines.push(['# recompute steps at a place of your choice and compare bits', './hone verify ' + quote(dir) + ' --replay']);
    if (run.lock) lines.push(['# everything again, from nothing', './hone train ' + quote(dir + '/recipe.lock') + ' output_dir=' + quote(dir + '-again')]);
    const text = lines.map(l => l[1]).join('\n') + '\n';
    const copy = el('button', { type: 'button', onclick: () => {
      const done = () => { copy.textContent = 'Copied'; setTimeout(() => { copy.textContent = 'Copy'; }, 1500); };
      if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, () => {});
    } }, 'Copy');
    return el('section', { class: 'panel' }, el('h2', null, 'Rebuild it'), el('p', { class: 'note' }, 'The same recipe gives the same bits on any x86-64 processor, with any number of threads.'),
      el('div', { class: 'commands' }, el('pre', null, lines.flatMap(([c, l], i) => [i ? '\n' : '', el('span', { class: 'c' }, c + '\n'), l + '\n'])), copy));
  }
  function details() {
    $('runs').replaceChildren(...runs.flatMap((r, i) => [
      many ? el('div', { class: 'run-name' }, el('i', { style: 'background:' + colour(i) }), el('h2', null, r.name), el('span', { class: 'note' }, describe(r))) : null,
      r.samples.length ? samples(r) : null, r.checkpoints.length ? checkpoints(r) : null, r.checks.length ? checks(r) : null, r.lock ? made(r) : null, rebuild(r)
    ].filter(Boolean)));
  }
  $('footer').append('Written ' + written + ' by hone. Log head ', ...runs.flatMap((r, i) => [i ? ', ' : '', el('span', { class: 'mono' }, r.log.head.slice(0, 16) + '…')]), '. Curves by Chart.js ' + Chart.version + ' (MIT), inside this page.');
  paint();
  if (many) manyTable(); else oneTiles(runs[0]);
  drawAll(), details();
})();
