// The page in headless Chromium: no errors, nothing fetched, sound for keyboard and screen reader, in every dress.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const root = new URL("../..", import.meta.url).pathname;
let browser, page_url;

before(async () => {
  const folder = mkdtempSync(join(tmpdir(), "meibo-report-"));
  const python = process.env.PYTHON ?? join(root, ".venv/bin/python");
  const written = execFileSync(python, ["-m", "tests.browser.page", folder], { cwd: root, encoding: "utf8" });
  page_url = pathToFileURL(written.trim()).href;
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync",
    ],
  });
});
after(() => browser?.close());

// The page's own Content-Security-Policy would refuse the examiner; Playwright can set it aside.
async function opened(options) {
  const context = await browser.newContext({ bypassCSP: true, ...options });
  const page = await context.newPage();
  const noise = [];
  page.on("console", (message) => noise.push(message.text()));
  page.on("pageerror", (error) => noise.push(String(error)));
  page.on("request", (request) => {
    if (request.url() !== page_url && !request.url().startsWith("data:")) noise.push(request.url());
  });
  await page.goto(page_url);
  return { page, noise };
}

const dresses = {
  light: { colorScheme: "light", viewport: { width: 1100, height: 900 } },
  dark: { colorScheme: "dark", viewport: { width: 1100, height: 900 } },
  "on a phone": { colorScheme: "light", viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true },
};

for (const [name, options] of Object.entries(dresses)) {
  test(`${name}: nothing is wrong for axe, said or fetched`, async () => {
    const { page, noise } = await opened(options);
    await page.evaluate(axe);
    const result = await page.evaluate(() => globalThis.axe.run({ resultTypes: ["violations"] }));
    const told = result.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`);
    assert.deepEqual(told, []);
    assert.deepEqual(noise, []);
    assert.ok(result.passes.some((one) => one.id === "color-contrast"));
  });

  test(`${name}: the page itself never scrolls sideways`, async () => {
    const { page } = await opened(options);
    const beyond = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(beyond <= 0, `${beyond} px beyond the window`);
  });
}

test("its own policy allows what it needs", async () => {
  const { page, noise } = await opened({ bypassCSP: false });
  assert.deepEqual(noise, []);
  assert.notEqual(await page.evaluate(() => getComputedStyle(document.querySelector(".tiles")).display), "block");
});

test("every table is reached by keyboard, in the order of the page", async () => {
  const { page } = await opened(dresses.light);
  const regions = await page.locator("[role=region]").evaluateAll((all) => all.map((one) => one.ariaLabel));
  const reached = [];
  for (let step = 0; step < regions.length; step++) {
    await page.keyboard.press("Tab");
    reached.push(await page.evaluate(() => document.activeElement.ariaLabel));
  }
  assert.ok(regions.length >= 4);
  assert.deepEqual(reached, regions);
});

test("it prints on white, whatever the screen is", async () => {
  const { page } = await opened(dresses.dark);
  await page.emulateMedia({ media: "print", colorScheme: "dark" });
  assert.equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), "rgb(255, 255, 255)");
  assert.ok((await page.pdf({ format: "A4" })).length > 10_000);
});

if (process.env.SCREENSHOT) {
  test("a screenshot for the README", async () => {
    const { page } = await opened({ ...dresses.light, viewport: { width: 1100, height: 800 } });
    await page.screenshot({ path: process.env.SCREENSHOT });
  });
}
