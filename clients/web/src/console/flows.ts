import type { FlowText } from "../client/index.js";

/** A flow that can be chosen. */
export interface KnownFlow {
  /** What stands for it in the address of the page. */
  readonly slug: string;
  /** What it is called before the mesh has read it. */
  readonly name: string;
  readonly source: FlowText;
}

const FIRST = ["classify", "multimodal-test", "showcase"];
const FILES = import.meta.glob<string>("../../../examples/flows/*.mlab", { eager: true, query: "?raw", import: "default" });

/** The flows that ship with the mesh, the simplest first. */
export const SHIPPED: readonly KnownFlow[] = Object.entries(FILES)
  .map(([path, yaml]) => known(path.split("/").at(-1) ?? path, yaml))
  .toSorted((one, other) => rank(one) - rank(other) || one.slug.localeCompare(other.slug));

/** Returns a flow by the text of its file. */
export function known(name: string, yaml: string): KnownFlow {
  // The mesh reads the whole of it; a chooser needs the name, which stands on a line of its own.
  const title = /^ {2,}name:\s*["']?(.+?)["']?\s*$/m.exec(yaml)?.[1];
  const slug = name.replace(/\.mlab$/, "");
  return { slug, name: title ?? slug, source: { name, yaml, files: usedBy(yaml) } };
}

/** Returns the texts of the shipped flows that a flow names by `flow`, and those that these name. */
function usedBy(yaml: string, seen = new Set<string>()): { name: string; yaml: string }[] {
  return [...yaml.matchAll(/\bflow:\s*["']?([\w./-]+\.mlab)/g)].flatMap(([, name = ""]) => {
    const text = FILES[`../../../examples/flows/${name}`];
    if (text === undefined || seen.has(name)) return [];
    seen.add(name);
    return [{ name, yaml: text }, ...usedBy(text, seen)];
  });
}

function rank({ slug }: KnownFlow): number {
  const place = FIRST.indexOf(slug);
  return place < 0 ? FIRST.length : place;
}
