"use strict";

// Tables: a click on a heading sorts, numbers and names alike; a second click turns the order round.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const falling = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(other => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const value = row => row.cells[column].dataset.v;
    const compare = column ? (a, b) => value(a) - value(b) : (a, b) => value(a).localeCompare(value(b), undefined, { numeric: true });
    body.append(...[...body.rows].sort((a, b) => falling ? compare(b, a) : compare(a, b)));
  }));
}

// Map: the object nearest to the pointer is shown on a card; the list and the legend pick a class or a group.
const svg = document.getElementById("map-svg");
if (svg) {
  const { places, ids, classes, names, groups, columns, tile } = JSON.parse(document.getElementById("map-data").textContent);
  const points = [...svg.querySelectorAll("use")], ring = svg.querySelector(".here"), card = document.getElementById("here-card");
  const [picture, title, label] = card.children, list = document.getElementById("map-class");
  const buttons = [...document.querySelectorAll(".legend button")];
  const pictures = [], board = document.querySelector(".map-pictures"), small = 34;
  let kept = () => true, here = -1;
  if (picture.className) picture.style.cssText = `width:${tile}px;height:${tile}px`;

  const tilePosition = (i, side) => `${-side * (i % columns)}px ${-side * Math.floor(i / columns)}px`;
  const show = i => {
    pictures[here]?.classList.remove("now");
    pictures[i]?.classList.add("now");
    here = i;
    card.hidden = i < 0;
    ring.style.display = i < 0 ? "none" : "inline";
    if (i < 0) return;
    ring.setAttribute("cx", places[i][0]);
    ring.setAttribute("cy", places[i][1]);
    title.textContent = ids[i];
    label.textContent = classes[i] < 0 ? "no label" : names[classes[i]];
    picture.style.backgroundPosition = tilePosition(i, tile);
    const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
    const x = places[i][0] * scale, y = places[i][1] * scale;
    card.style.left = `${Math.max(0, Math.min(x + 14, box.width - card.offsetWidth))}px`;
    card.style.top = `${y + 14 + card.offsetHeight > box.height ? Math.max(0, y - 14 - card.offsetHeight) : y + 14}px`;
  };
  const nearest = event => {
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    let best = -1, distance = 24 * scale;
    places.forEach(([px, py], i) => {
      const d = Math.hypot(px - x, py - y);
      if (d < distance && kept(i)) [best, distance] = [i, d];
    });
    return best;
  };
  const keep = test => {
    kept = test || (() => true);
    for (const layer of [points, pictures]) {
      layer.forEach((item, i) => item.classList.toggle("kept", kept(i)));
      layer[0]?.parentElement.classList.toggle("some", Boolean(test));
    }
    show(-1);
  };
  const keepClass = code => {
    buttons.forEach(button => button.setAttribute("aria-pressed", "false"));
    keep(code === "" ? null : i => classes[i] === Number(code));
  };
  svg.addEventListener("pointermove", event => show(nearest(event)));
  svg.addEventListener("pointerdown", event => show(nearest(event)));
  svg.addEventListener("pointerleave", event => event.pointerType === "mouse" && show(-1));
  svg.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const all = places.map((_, i) => i).filter(kept);
    if (!step || !all.length) return;
    event.preventDefault();
    const at = all.indexOf(here);
    show(all[at < 0 ? 0 : (at + step + all.length) % all.length]);
  });
  buttons.forEach(button => button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") === "true", group = Number(button.dataset.group);
    if (list) list.value = "";
    buttons.forEach(other => other.setAttribute("aria-pressed", String(other === button && !on)));
    keep(on ? null : i => groups[i] === group);
  }));
  document.getElementById("map-as-pictures")?.addEventListener("change", event => {
    board.hidden = !event.target.checked;
    if (pictures.length) return;
    places.forEach(([x, y], i) => {
      const span = document.createElement("span");
      span.className = `from-atlas g${groups[i]}${kept(i) ? " kept" : ""}`;
      span.style.cssText = `left:${100 * x / svg.viewBox.baseVal.width}%;top:${100 * y / svg.viewBox.baseVal.height}%`;
      span.style.backgroundSize = `${columns * small}px`;
      span.style.backgroundPosition = tilePosition(i, small);
      pictures.push(span);
    });
    board.append(...pictures);
    board.classList.toggle("some", svg.classList.contains("some"));
  });
  if (list) list.addEventListener("change", () => keepClass(list.value));
  for (const link of document.querySelectorAll("a[data-class]")) {
    link.addEventListener("click", () => {
      if (list) list.value = link.dataset.class;
      keepClass(link.dataset.class);
    });
  }
}
