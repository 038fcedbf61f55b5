// The text in the box as terms: office chair -wooden -"with arms" "red"
//
// Words stand together as one term. A minus before a word makes a term of its own, of what it should not be like; quotation
// marks do so too, and keep words together.

const PART = /(-?)"([^"]*)"?|(-?)(\S+)/g;

/** [{ text, minus }], what is asked first, in the order of the box. */
export function wordsIn(text) {
  const plain = [];
  const others = [];
  for (const [, quotedMinus, quoted, minus, word] of text.matchAll(PART)) {
    if (quoted !== undefined) others.push({ text: quoted.trim(), minus: quotedMinus === "-" });
    else if (minus) others.push({ text: word, minus: true });
    else plain.push(word);
  }
  const all = [{ text: plain.join(" "), minus: false }, ...others];
  return all.filter((term, i) => term.text && all.findIndex((other) => other.text === term.text) === i);
}

/** The box's text for terms: the other way round. */
export function textOf(terms) {
  const isPlain = (term) => !term.minus && !/"|(^|\s)-/.test(term.text);
  const first = terms.find(isPlain);
  return terms
    .map((term) => {
      if (term === first) return term.text;
      const text = term.text.replaceAll('"', "");
      return (term.minus ? "-" : "") + (term.minus && !/\s/.test(text) ? text : `"${text}"`);
    })
    .join(" ");
}
