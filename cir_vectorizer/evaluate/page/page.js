// Show one of the parts that stand for each other, and let the reader choose.
for (const group of document.querySelectorAll(".panels")) {
  const panels = [...group.children];
  const choose = document.createElement("select");
  for (const panel of panels) choose.add(new Option(panel.querySelector("h3").textContent));
  const show = () => panels.forEach((panel, i) => panel.classList.toggle("other", i !== choose.selectedIndex));
  choose.addEventListener("change", show);
  const label = document.createElement("label");
  label.append(group.dataset.label, choose);
  group.prepend(label);
  group.classList.add("chosen");
  show();
}
