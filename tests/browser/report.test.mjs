// The report page in headless Chromium: no errors or requests, accessible by keyboard and screen reader, in each view.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const root = fileURLToPath(new URL("../..", import.meta.url));
let browser, folder;
const languages = ["en", "ja"];
const url = (language) => pathToFileURL(join(folder, `${language}.html`)).href;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "meibo-report-"));
  const python = process.env.PYTHON ?? join(root, ".venv/bin/python");
  execFileSync(python, ["-m", "tests.browser.page", folder], { cwd: root });
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync",
    ],
  });
});
after(() => browser?.close());

// The page's Content-Security-Policy would block axe, so Playwright bypasses it.
async function openPage(options, language = "en") {
  const context = await browser.newContext({ bypassCSP: true, ...options });
  const page = await context.newPage();
  const problems = [];
  page.on("console", (message) => problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("request", (request) => {
    if (request.url() !== url(language) && !request.url().startsWith("data:")) problems.push(request.url());
  });
  await page.goto(url(language));
  return { page, problems };
}

const views = {
  light: { colorScheme: "light", viewport: { width: 1100, height: 900 } },
  dark: { colorScheme: "dark", viewport: { width: 1100, height: 900 } },
  "on a phone": { colorScheme: "light", viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true },
};

for (const language of languages) for (const [view, options] of Object.entries(views)) {
  const name = `${language}, ${view}`;
  test(`${name}: no axe violations, console messages or requests`, async () => {
    const { page, problems } = await openPage(options, language);
    await page.evaluate(axe);
    const result = await page.evaluate(() => globalThis.axe.run({ resultTypes: ["violations"] }));
    const violations = result.violations.map((item) => `${item.id}: ${item.nodes.map((node) => node.html).join(" ")}`);
    assert.deepEqual(violations, []);
    assert.deepEqual(problems, []);
    assert.ok(result.passes.some((item) => item.id === "color-contrast"));
  });

  test(`${name}: no horizontal scrolling`, async () => {
    const { page } = await openPage(options, language);
    const beyond = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(beyond <= 0, `${beyond} px wider than the window`);
  });
}

test("the page works under its Content-Security-Policy", async () => {
  const { page, problems } = await openPage({ bypassCSP: false });
  assert.deepEqual(problems, []);
  assert.notEqual(await page.evaluate(() => getComputedStyle(document.querySelector(".tiles")).display), "block");
});

test("every table is reachable by keyboard in the order of the page", async () => {
  const { page } = await openPage(views.light);
  const regions = await page.locator("[role=region]").evaluateAll((all) => all.map((region) => region.ariaLabel));
  const reached = [];
  for (let step = 0; step < regions.length; step++) {
    await page.keyboard.press("Tab");
    reached.push(await page.evaluate(() => document.activeElement.ariaLabel));
  }
  assert.ok(regions.length >= 4);
  assert.deepEqual(reached, regions);
});

test("the page prints on white in every color scheme", async () => {
  const { page } = await openPage(views.dark);
  await page.emulateMedia({ media: "print", colorScheme: "dark" });
  assert.equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), "rgb(255, 255, 255)");
  assert.ok((await page.pdf({ format: "A4" })).length > 10_000);
});

if (process.env.SCREENSHOTS) {
  for (const language of languages) {
    test(`a screenshot for the README, ${language}`, async () => {
      const { page } = await openPage({ ...views.light, viewport: { width: 1100, height: 800 } }, language);
      await page.screenshot({ path: join(process.env.SCREENSHOTS, language === "en" ? "" : language, "report.png") });
    });
  }
}
