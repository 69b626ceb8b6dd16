// The data page by keyboard: each key presses a button of the current card, so that nothing is done that a click cannot do.
const cards = [...document.querySelectorAll(".sample")];
let current = Math.max(0, cards.findIndex((card) => `#${card.id}` === location.hash));

function show(number) {
  current = Math.min(cards.length - 1, Math.max(0, number));
  cards.forEach((card, index) => card.classList.toggle("current", index === current));
  cards[current]?.focus();
}

function press(action) {
  cards[current]?.querySelector(`button[name=action][value=${action}]`)?.click();
}

document.addEventListener("focusin", (event) => {
  const card = event.target.closest(".sample");
  if (card && cards.indexOf(card) !== current) {
    current = cards.indexOf(card);
    cards.forEach((other) => other.classList.toggle("current", other === card));
  }
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input, textarea, select")) return;
  if (event.key === "j") show(current + 1);
  else if (event.key === "k") show(current - 1);
  else if (event.key === "a") press("approve");
  else if (event.key === "r") press("reject");
  else if (event.key === "u") press("undo");
  else if (event.key === "e") {
    const editor = cards[current]?.querySelector(".editor");
    if (!editor) return;
    editor.open = true;
    editor.querySelector("textarea[name=answer]").focus();
  } else return;
  event.preventDefault();
});

if (cards.length && location.hash.startsWith("#s-")) show(current);
