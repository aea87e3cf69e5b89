/** The page's HTML. */
import { FAVICON, SCRIPT, STYLE } from "./assets.ts";
import type { CacheOverview, Overview } from "./client/data.ts";
import { formatAge, formatCount, formatSize, formatTime, plural } from "./client/format.ts";
import { stateClass, stateText } from "./client/state.ts";
import { clientLines, usableKeys } from "./client-lines.ts";
import { type Html, html } from "./html.ts";

export function renderDocument(overview: Overview, keys: readonly string[], origin: string): string {
  const { caches } = overview;
  const title = caches.length === 1 ? (caches[0]?.name ?? "") : plural(caches.length, "cache");
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title} · nixcache</title>
<link rel="icon" href="${FAVICON.path}" type="image/svg+xml">
<link rel="stylesheet" href="${STYLE.path}">
<script type="module" src="${SCRIPT.path}"></script>
</head>
<body>
<a class="skip" href="#publishes">Skip to what is in it</a>
<header>
<p class="brand"><img src="${FAVICON.path}" alt="" width="20" height="20"> nixcache <span>${overview.version}</span></p>
<h1>${title}</h1>
</header>
<main>
${caches.map((cache, index) => summary(cache, index, overview))}
${use(origin, usableKeys(keys))}
<noscript><p class="note">What follows needs JavaScript. <a href="_status">The status</a> does not.</p></noscript>
<section aria-labelledby="traffic-title">
<h2 id="traffic-title">Traffic</h2>
<div id="traffic"></div>
<h3 id="upstreams-title">Upstream caches</h3>
<ul id="upstreams" class="plain" aria-labelledby="upstreams-title">${overview.upstreams.map(
    ({ url, state, healthy }) =>
      html`<li><code>${url}</code> <span class="state ${healthy ? "good" : "bad"}">${state ?? ""}</span></li>`,
  )}</ul>
</section>
${picker(caches)}
<section aria-labelledby="publishes-title" id="publishes" tabindex="-1">
<h2 id="publishes-title">Publishes</h2>
<div id="publish-list" class="reserved"></div>
<p class="more"><button type="button" id="more-publishes" hidden>Show older publishes</button></p>
</section>
<section aria-labelledby="paths-title">
<h2 id="paths-title">Store paths</h2>
<search>
<label for="search">Search by name, version or store path</label>
<input id="search" type="search" autocomplete="off" autocapitalize="off" spellcheck="false" maxlength="300" placeholder="firefox 128">
</search>
<p id="matches" role="status"></p>
<div id="path-list" class="reserved"></div>
<p class="more"><button type="button" id="more-paths" hidden>Show more paths</button></p>
</section>
</main>
<footer><p>Also here: <a href="_status">status</a>, <a href="public-key">public keys</a>, <a href="nix-cache-info">nix-cache-info</a></p></footer>
</body>
</html>
`.html;
}

/** Names of the facts are what the script finds them by. */
function summary(cache: CacheOverview, index: number, { now, caches }: Overview): Html {
  const { totals, latest } = cache;
  return html`<section class="summary" data-cache="${index}" aria-label="Summary of ${cache.name}">
${caches.length > 1 ? html`<h2>${cache.name}</h2>` : undefined}
<p class="state ${stateClass(cache)}" data-fact="state">${stateText(cache, now)}</p>
<dl>
<div><dt>Store paths</dt><dd data-fact="paths">${totals === null ? "–" : formatCount(totals.paths)}</dd></div>
<div><dt>Unpacked</dt><dd data-fact="narSize">${totals === null ? "–" : formatSize(totals.narSize)}</dd></div>
<div><dt>Compressed</dt><dd data-fact="fileSize">${totals === null ? "–" : formatSize(totals.fileSize)}</dd></div>
<div><dt>Published</dt><dd data-fact="published">${
    latest?.time == null
      ? "–"
      : html`<time datetime="${new Date(latest.time).toISOString()}" title="${formatTime(latest.time)}">${formatAge(now - latest.time)}</time>`
  }</dd></div>
</dl>
${cache.generation === null ? undefined : html`<p class="note">Only one generation is served, as it was: <code>${cache.generation}</code></p>`}
</section>`;
}

function use(origin: string, keys: readonly string[]): Html {
  const { nixConf, nixos } = clientLines(origin, keys);
  return html`<section aria-labelledby="use-title">
<h2 id="use-title">Use it</h2>
<div class="lines">
${lines("nix-conf", "nix.conf", nixConf, origin)}
${lines("nixos", "NixOS", nixos, origin)}
</div>
${
  keys.length > 0
    ? undefined
    : html`<p class="note">Nothing in this cache is signed by its publishers, and Nix refuses unsigned paths. Publish with a signing key (<code>nixcache keygen</code>), or trust whatever this address gives: <code>extra-substituters = ${origin}?trusted=true</code></p>`
}
</section>`;
}

function lines(id: string, title: string, text: string, origin: string): Html {
  return html`<figure>
<figcaption id="${id}-title">${title}</figcaption>
<button type="button" class="copy" data-copy="${id}" aria-describedby="${id}-title" hidden>Copy</button>
<pre tabindex="0" role="region" aria-labelledby="${id}-title"><code id="${id}" data-origin="${origin}">${text}</code></pre>
</figure>`;
}

function picker(caches: readonly CacheOverview[]): Html {
  const options = caches.map(({ name }, index) => html`<option value="${index}">${name}</option>`);
  return html`<p class="picker"${caches.length > 1 ? undefined : html` hidden`}><label for="cache">Show the contents of</label> <select id="cache">${options}</select></p>`;
}
