// Each view has an address: what stands after the # says what is shown.
//
//   #/                          everything
//   #/search/<text>             channels whose names have this text
//   #/channel/<name>            the messages of one channel
//   #/message/<name>/<message>  how the counts of one message came to be

/** Returns the address of a view. */
export function address(view, ...parts) {
  return `#/${[view, ...parts.map(encodeURIComponent)].join("/")}`;
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Returns the view of the address as it is now: its name and its parts. */
export function route() {
  const [view = "", ...parts] = location.hash.replace(/^#\/?/, "").split("/");
  return { view, parts: parts.map(decoded) };
}
