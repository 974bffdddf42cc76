"""The report page in a real browser: what a reader clicks, types and sees, on a screen, a phone and paper."""

import difflib
import os
import random
import re
import shutil
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the dev extra: playwright")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the dev extra: axe-playwright-python")
expect = sync_api.expect
expect.set_options(timeout=20_000)

from page_runs import all_runs
from typer.testing import CliRunner

from swe_srl.cli import app
from swe_srl.schema import StepAgreement
from swe_srl.store import read_records

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for path in map(shutil.which, BROWSERS) if path), None)

EVIL = "</script><script>window.run_by_page = 1</script><img src=x onerror='window.run_by_page = 2'>"
TASK = "django__django-1004"


@pytest.fixture(scope="module")
def browser():
    # as root, Chromium's own sandbox refuses to start
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=BROWSER, args=arguments)
        except sync_api.Error as error:
            if BROWSER is None and "Executable doesn't exist" in error.message:
                pytest.skip("no Chromium: scripts/apt_install.sh chromium-headless-shell, or playwright install")
            raise
        yield chromium
        chromium.close()


def report(root: Path, **sizes) -> Path:
    """A page by way of the verb."""
    runs = all_runs(root / "runs", **sizes)
    result = CliRunner().invoke(app, ["report", *map(str, runs), "--out", str(root / "out")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return root / "out" / "index.html"


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return report(tmp_path_factory.mktemp("small"), output="\n".join(f"line {number}" for number in range(40)))


@pytest.fixture
def visit(browser):
    """Open a page; at the end nothing may have been complained of, and nothing asked of a network."""
    contexts, complaints = [], []

    def open_page(path: Path, address: str = "", *, width: int = 1280, height: int = 800, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("request", lambda asked: asked.url.startswith(("file:", "data:")) or complaints.append(asked.url))
        page.goto(f"{path.as_uri()}{address}")
        page.wait_for_function("performance.getEntriesByName('opened').length")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def found(page):
    """What the list says of itself, waited for: a click is handled when the browser comes to it."""
    return expect(page.locator("#found"))


def test_a_number_opens_the_tasks_behind_it(visit, small):
    page = visit(small)
    page.get_by_role("link", name="1 tampered: show them").first.click()
    found(page).to_have_text("1 of 8 tasks")
    expect(page.locator("#f-status")).to_have_value("tampered")
    expect(page.locator("#f-run")).to_have_value("0")
    page.go_back()
    expect(page.locator("#numbers")).to_be_visible()


def test_search_and_filters_narrow_the_list(visit, small):
    page = visit(small, "#tasks")
    found(page).to_have_text("8 tasks")
    page.get_by_role("searchbox").fill("requests 100")
    found(page).to_have_text("2 of 8 tasks")
    page.get_by_role("button", name="Clear").click()
    found(page).to_have_text("8 tasks")
    page.get_by_role("combobox", name="Project").select_option("django")
    found(page).to_have_text("2 of 8 tasks")
    expect(page.locator("#rows").get_by_role("option").filter(has_text="django__")).to_have_count(2)
    page.get_by_role("combobox", name="Project").select_option("")
    page.get_by_role("combobox", name="Show only").select_option("differs")
    found(page).to_have_text("3 of 8 tasks")
    page.get_by_role("combobox", name="Show only").select_option("")
    page.get_by_role("combobox", name="Status").select_option("resolved")
    found(page).to_have_text("3 of 8 tasks")
    page.get_by_role("combobox", name="Run").select_option("1")
    found(page).to_have_text("2 of 8 tasks")
    page.get_by_role("combobox", name="Status").select_option("")
    page.get_by_role("combobox", name="Show only").select_option("failing")
    found(page).to_have_text("6 of 8 tasks")
    page.get_by_role("searchbox").fill("no such task")
    expect(page.locator("#rows").get_by_text("No task is like this")).to_be_visible()


def test_tasks_can_be_put_in_another_order(visit, small):
    page = visit(small, "#tasks")
    page.get_by_role("combobox", name="Order").select_option("failing")
    order = (
        page.locator("#rows")
        .get_by_role("option")
        .evaluate_all("rows => rows.sort((a, b) => a.ariaPosInSet - b.ariaPosInSet).map((row) => row.title)")
    )
    assert order[:2] == ["psf__requests-1002", "sympy__sympy-1005"]
    assert len(order) == 8


def test_keys_walk_through_tasks_and_turns(visit, small):
    page = visit(small, "#tasks")
    page.locator("#turn h2").filter(has_text="django__django-1000").wait_for()
    page.keyboard.press("j")
    page.locator("#turn h2").filter(has_text=TASK).wait_for()
    page.keyboard.press("n")
    page.keyboard.press("ArrowRight")
    page.locator("#turn h2").filter(has_text="Step 2 of 5").wait_for()
    page.keyboard.press("p")
    page.locator("#turn h2").filter(has_text="Step 1 of 5").wait_for()
    page.keyboard.press("Escape")
    page.locator("#turn h2").filter(has_text=TASK).wait_for()
    page.keyboard.press("ArrowUp")
    page.locator("#turn h2").filter(has_text="django__django-1000").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("flask j")
    found(page).to_have_text("0 of 8 tasks")
    page.keyboard.press("Escape")
    found(page).to_have_text("8 tasks")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "rows"
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).not_to_be_visible()


def test_an_address_opens_a_step_and_follows_what_is_chosen(visit, small):
    page = visit(small, f"#task={TASK}&turn=1.2&status=unresolved")
    page.locator("#turn h2").filter(has_text="Step 2 of 5").wait_for()
    expect(page.locator("#f-status")).to_have_value("unresolved")
    page.locator("#turns button").filter(has_text="str_replace core_2.py").first.click()
    page.locator("#turn h2").filter(has_text="Step 3 of 5").wait_for()
    assert page.evaluate("location.hash") == f"#task={TASK}&turn=1.3&status=unresolved"
    page.go_back()
    page.locator("#turn h2").filter(has_text="Step 2 of 5").wait_for()
    assert page.title() == f"{TASK} · swe-srl report"


def test_an_address_of_nothing_says_so(visit, small):
    page = visit(small, "#task=no-such-task")
    page.get_by_text("No task no-such-task in this report.").wait_for()


def test_a_teachers_step_stands_beside_the_samples(visit, small):
    page = visit(small, f"#task={TASK}&turn=1.2")
    teacher = page.get_by_role("region", name="Teacher")
    teacher.get_by_text("grep -rn", exact=False).first.wait_for()
    expect(teacher.get_by_text("faithful")).to_be_visible()
    folded = teacher.locator("pre.folded")
    expect(folded).to_have_count(1)
    teacher.get_by_role("button", name="Show all of the output").click()
    expect(folded).to_have_count(0)
    samples = page.locator(".sample")
    expect(samples).to_have_count(4)
    expect(samples.nth(0)).to_contain_text("-1.000")
    expect(samples.nth(0)).to_contain_text("well formed 0")
    whole = samples.nth(2)
    expect(whole).to_contain_text("similarity 1")
    whole.get_by_role("button", name="show what it shares").click()
    expect(whole.get_by_role("button", name="show what it shares")).to_have_attribute("aria-pressed", "true")
    shared = "".join(teacher.locator("mark").all_inner_texts())
    assert shared == whole.locator("pre").inner_text()


def test_a_model_that_only_answered_steps_has_bars_in_the_list(visit, tmp_path):
    runs = all_runs(tmp_path / "runs", num_tasks=2)
    for name in ("predictions.jsonl", "verdicts.jsonl", "grade.json", "episodes.jsonl"):
        (runs[0] / name).unlink()
    result = CliRunner().invoke(app, ["report", str(runs[0]), "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert result.exit_code == 0
    page = visit(tmp_path / "out" / "index.html", f"#task={TASK[:-1]}0&turn=1.1")
    bar = page.locator("#rows").get_by_role("option").first.get_by_role("img")
    rows = [row.similarity for row in read_records(runs[0] / "step_agreement.jsonl", StepAgreement)]
    assert bar.get_attribute("aria-label") == f"base {sum(rows[:5]) / 5:.2f}"
    expect(page.get_by_text("What the teacher did stands in the run of swe-srl replay")).to_be_visible()
    expect(page.locator(".sample")).to_have_count(2)


def test_a_verdict_shows_its_failing_tests(visit, small):
    page = visit(small, f"#task={TASK}")
    card = page.get_by_role("region", name="srl: unresolved")
    expect(card.get_by_text("tests/test_core.py::test_4")).to_be_visible()
    expect(card.locator("ins")).to_have_text("+    return 2")


def test_blocks_are_those_that_the_reward_counts(visit, small):
    chance = random.Random(1)
    pairs = [("", ""), ("a", ""), ("naïve 🐍🐍 x", "🐍 naive x")]
    for _ in range(60):
        letters = chance.choice(["ab", "abc \n", "<function=bash>grep -rn 'def x' src | head 🐍"])
        text = "".join(chance.choices(letters, k=chance.randrange(300)))
        other = "".join(letter for letter in text if chance.random() > 0.2) + "".join(chance.choices(letters, k=20))
        pairs.append((text, other))
    page = visit(small)
    script = "pairs => pairs.map(([a, b]) => { const found = compareTexts(a, b); return [found.blocks, found.ratio]; })"
    for (a, b), (blocks, ratio) in zip(pairs, page.evaluate(script, pairs), strict=True):
        matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
        assert [tuple(block) for block in blocks] == [tuple(block) for block in matcher.get_matching_blocks()[:-1]]
        assert ratio == pytest.approx(matcher.ratio(), abs=1e-12)


def test_what_models_and_boxes_wrote_is_text_and_never_run(visit, tmp_path):
    path = report(tmp_path, num_tasks=2, output=EVIL)
    page = visit(path, "#task=django__django-1000&turn=1.1")
    page.locator("#turn pre").filter(has_text="onerror=").first.wait_for()
    assert EVIL in page.locator("#turn").inner_text()
    expect(page.locator("#viewer img, #viewer script")).to_have_count(0)
    assert page.evaluate("window.run_by_page") is None


CONTRAST = """() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return { r, g, b, a }; };
  const light = ({ r, g, b }) => [r, g, b].map((v) => (v /= 255, v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => { for (; node; node = node.parentElement) { const c = parse(getComputedStyle(node).backgroundColor); if (c.a > 0) return c; } return { r: 255, g: 255, b: 255 }; };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !node.checkVisibility() || node.closest("script, noscript, [disabled]")) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(parse(node instanceof SVGElement ? style.fill : style.color)), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) low.push(`${walker.currentNode.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_both_themes(visit, small, scheme):
    grounds = {"light": "rgb(247, 247, 245)", "dark": "rgb(19, 21, 24)"}
    for address in ("", f"#task={TASK}", f"#task={TASK}&turn=1.4"):
        page = visit(small, address, color_scheme=scheme)
        page.wait_for_timeout(100)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == grounds[scheme]
        assert page.evaluate(CONTRAST) == []


def test_the_theme_can_be_chosen(visit, small):
    page = visit(small)
    for words, scheme in (("Theme: light", "light"), ("Theme: dark", "dark"), ("Theme: auto", "light dark")):
        page.locator("#theme").click()
        expect(page.locator("#theme")).to_have_text(words)
        assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == scheme


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("width", "address"), [(1280, ""), (1280, f"#task={TASK}&turn=1.2"), (390, ""), (390, "#tasks")]
)
def test_axe_finds_nothing_to_object_to(visit, small, width, address, scheme):
    page = visit(small, address, width=width, color_scheme=scheme)
    page.wait_for_timeout(100)
    results = axe.Axe().run(page)
    assert len(results.response["passes"]) > 20
    assert not results.violations_count, results.generate_report()


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_shows_one_thing_at_a_time_and_never_scrolls_sideways(visit, small, width):
    page = visit(small, "", width=width, height=700, has_touch=True, is_mobile=True)
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(fits)
    page.get_by_role("link", name=re.compile("^Tasks")).tap()
    expect(page.locator("#rows")).to_be_visible()
    assert page.evaluate(fits)
    page.locator("#rows").get_by_role("option").nth(1).tap()
    expect(page.locator("#rows")).not_to_be_visible()
    page.locator("#turns button").filter(has_text="handle_1").first.tap()
    page.locator("#turn h2").filter(has_text="Step 2").wait_for()
    expect(page.locator("#turns")).not_to_be_visible()
    assert page.evaluate(fits)
    page.get_by_role("button", name="‹ Turns").tap()
    page.get_by_role("button", name="‹ Tasks").tap()
    expect(page.locator("#rows")).to_be_visible()


def test_paper_gets_the_content_without_the_controls(visit, small):
    page = visit(small, color_scheme="dark")
    page.emulate_media(media="print")
    expect(page.locator("#theme")).not_to_be_visible()
    expect(page.get_by_role("heading", name="Outcomes")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page = visit(small, f"#task={TASK}&turn=1.2")
    page.emulate_media(media="print")
    expect(page.locator(".sample").first).to_be_visible()
    expect(page.locator("#rows")).not_to_be_visible()
    assert page.pdf().startswith(b"%PDF")


def test_a_chart_says_what_was_at_the_update_under_the_pointer(visit, small):
    page = visit(small)
    chart = page.locator(".chart").filter(has_text="Entropy")
    chart.locator(".area").scroll_into_view_if_needed()
    box = chart.locator(".area").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 10)
    expect(chart.locator(".readout")).to_have_text("update 12: srl 0.08333")


def test_500_tasks_with_5000_steps_open_in_under_2_seconds_and_nothing_jumps(visit, tmp_path):
    noise = random.Random(0)
    path = report(tmp_path, num_tasks=500, num_steps=10, output=[noise.randbytes(24).hex() for _ in range(5000)])
    blank = tmp_path / "blank.html"
    blank.write_text("<!doctype html><script>performance.mark('opened')</script>")
    took = "performance.getEntriesByName('opened')[0].startTime"
    shifts = "new Promise((done) => new PerformanceObserver((list) => done(list.getEntries().reduce((sum, entry) => sum + entry.value, 0))).observe({ type: 'layout-shift', buffered: true }) || setTimeout(() => done(0), 200))"
    shares = []
    for address in ("#tasks", "#task=django__django-1200&turn=1.4", "#task=django__django-1200&turn=1.4"):
        bare = visit(blank).evaluate(took)
        page = visit(path, address)
        most = max(2000, 30 * bare)  # where the machine is busy, an empty page is slow too
        shares.append(page.evaluate(took) / most)
        found(page).to_have_text("500 tasks")
        assert page.locator("#rows").get_by_role("option").count() < 60
        assert page.evaluate(shifts) < 0.02
    page.locator("#rows").evaluate("node => { node.scrollTop = node.scrollHeight; }")
    page.locator("#rows").get_by_role("option").filter(has_text="sympy__sympy-1497").wait_for()
    assert min(shares) < 1, f"opening took {shares} times what it may"
