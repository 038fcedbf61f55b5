"use strict";

// Tables: a click on a heading sorts by numbers or names; a second click reverses the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const descending = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(other => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const value = row => row.cells[column].dataset.v;
    const compare = column ? (a, b) => value(a) - value(b) : (a, b) => value(a).localeCompare(value(b), undefined, { numeric: true });
    body.append(...[...body.rows].sort((a, b) => descending ? compare(b, a) : compare(a, b)));
  }));
}

// Map: a card shows the object nearest to the pointer; the list and the legend select a class or a group.
const svg = document.getElementById("map-svg");
if (svg) {
  const { positions, ids, classes, names, groups, columns, tile } = JSON.parse(document.getElementById("map-data").textContent);
  const points = [...svg.querySelectorAll("use")], ring = svg.querySelector(".highlight"), card = document.getElementById("map-card");
  const [image, title, label] = card.children, list = document.getElementById("map-class");
  const buttons = [...document.querySelectorAll(".legend button")];
  const images = [], board = document.querySelector(".map-images"), small = 34;
  let kept = () => true, current = -1;
  if (image.className) image.style.cssText = `width:${tile}px;height:${tile}px`;

  const tilePosition = (i, side) => `${-side * (i % columns)}px ${-side * Math.floor(i / columns)}px`;
  const show = i => {
    images[current]?.classList.remove("current");
    images[i]?.classList.add("current");
    current = i;
    card.hidden = i < 0;
    ring.style.display = i < 0 ? "none" : "inline";
    if (i < 0) return;
    ring.setAttribute("cx", positions[i][0]);
    ring.setAttribute("cy", positions[i][1]);
    title.textContent = ids[i];
    label.textContent = classes[i] < 0 ? "no label" : names[classes[i]];
    image.style.backgroundPosition = tilePosition(i, tile);
    const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
    const x = positions[i][0] * scale, y = positions[i][1] * scale;
    card.style.left = `${Math.max(0, Math.min(x + 14, box.width - card.offsetWidth))}px`;
    card.style.top = `${y + 14 + card.offsetHeight > box.height ? Math.max(0, y - 14 - card.offsetHeight) : y + 14}px`;
  };
  const nearest = event => {
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    let best = -1, distance = 24 * scale;
    positions.forEach(([px, py], i) => {
      const d = Math.hypot(px - x, py - y);
      if (d < distance && kept(i)) [best, distance] = [i, d];
    });
    return best;
  };
  const keep = test => {
    kept = test || (() => true);
    for (const layer of [points, images]) {
      layer.forEach((item, i) => item.classList.toggle("kept", kept(i)));
      layer[0]?.parentElement.classList.toggle("some", Boolean(test));
    }
    show(-1);
  };
  const keepClass = classId => {
    buttons.forEach(button => button.setAttribute("aria-pressed", "false"));
    keep(classId === "" ? null : i => classes[i] === Number(classId));
  };
  svg.addEventListener("pointermove", event => show(nearest(event)));
  svg.addEventListener("pointerdown", event => show(nearest(event)));
  svg.addEventListener("pointerleave", event => event.pointerType === "mouse" && show(-1));
  svg.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const all = positions.map((_, i) => i).filter(kept);
    if (!step || !all.length) return;
    event.preventDefault();
    const at = all.indexOf(current);
    show(all[at < 0 ? 0 : (at + step + all.length) % all.length]);
  });
  buttons.forEach(button => button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") === "true", group = Number(button.dataset.group);
    if (list) list.value = "";
    buttons.forEach(other => other.setAttribute("aria-pressed", String(other === button && !on)));
    keep(on ? null : i => groups[i] === group);
  }));
  document.getElementById("map-as-images")?.addEventListener("change", event => {
    board.hidden = !event.target.checked;
    if (images.length) return;
    positions.forEach(([x, y], i) => {
      const span = document.createElement("span");
      span.className = `from-atlas g${groups[i]}${kept(i) ? " kept" : ""}`;
      span.style.cssText = `left:${100 * x / svg.viewBox.baseVal.width}%;top:${100 * y / svg.viewBox.baseVal.height}%`;
      span.style.backgroundSize = `${columns * small}px`;
      span.style.backgroundPosition = tilePosition(i, small);
      images.push(span);
    });
    board.append(...images);
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
