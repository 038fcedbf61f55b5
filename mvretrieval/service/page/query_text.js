// The text of the search box as terms: office chair -wooden -"with arms" "red"
//
// Plain words form one term. A minus before a word makes a negative term of its own. Quotation marks make a term of their own
// and keep several words together.

const PART = /(-?)"([^"]*)"?|(-?)(\S+)/g;

/** [{ text, minus }]: the plain words first, then the other terms in the order of the box. */
export function parseText(text) {
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

/** The inverse of `parseText`: the text of the box for some terms. */
export function formatText(terms) {
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
