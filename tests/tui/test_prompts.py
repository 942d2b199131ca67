"""The Prompts view by keyboard: the list, its chart and tokens, the variants."""

import re
from dataclasses import replace
from pathlib import Path

from textual.events import Paste
from textual.widgets import DataTable, Input, Label, Static, TabbedContent, TextArea

from engine.base.plain import cells, one_line
from engine.generation.config import GenerationConfig
from engine.text.lengths import count
from engine.text.prompts import EXAMPLE_PROMPTS, MAX_PROMPTS, SYSTEM_VARIANTS, VARIANTS
from tests.engine.chat_templates import CHATML, chatting
from tests.tui.conftest import SHORT, until
from tui.dialogs.choose_file import ChooseFile
from tui.dialogs.edit_text import EditText
from tui.dialogs.variant_result import VariantResultDialog
from tui.panes.generate import GeneratePane
from tui.panes.prompt import PromptPane
from tui.panes.prompts import PromptsPane
from tui.panes.variants import VariantsPane
from tui.widgets.token_flow import TokenFlow

SAMPLED = (SHORT[0], GenerationConfig(name="s", strategy="sample", seed=0, max_new_tokens=6, ignore_eos=True))


async def opened(app, pilot) -> PromptsPane:
    """The Prompts view, with its list counted and in focus."""
    app.query_one(TabbedContent).active = "prompts-tab"
    pane = app.query_one(PromptsPane)
    pane.table.focus()
    await counted(pane, pilot)
    return pane


async def counted(pane: PromptsPane, pilot) -> None:
    await until(pilot, lambda: len(pane.lengths) == len(pane.prompts) == pane.table.row_count)
    await pilot.pause()


def says(app, id: str = "prompts-say") -> str:
    return str(app.screen.query_one(f"#{id}", Static).render())


def line(pane: PromptsPane, row: int) -> str:
    """What is drawn of a row."""
    table = pane.table
    return table.render_line(table.HEAD + row * table.pitch - table.scroll_offset.y).text


async def test_the_examples_are_listed_with_the_numbers_of_the_engine(lab) -> None:
    async with lab() as (app, pilot):
        pane = await opened(app, pilot)
        assert pane.prompts == list(EXAMPLE_PROMPTS)
        assert pane.lengths == count(app.lab.tokenizer, EXAMPLE_PROMPTS)
        await pilot.press("down", "down")
        await until(pilot, lambda: pane.query_one(TokenFlow).tokens[0].text == "A")
        shown = "".join(token.text for token in pane.query_one(TokenFlow).tokens)
        assert shown == EXAMPLE_PROMPTS[2]
        assert "Prompt 3" in says(app, "prompt-detail")
        for row, (prompt, length) in enumerate(zip(EXAMPLE_PROMPTS, pane.lengths)):
            drawn = line(pane, row)
            assert drawn.startswith(f" {row + 1} {prompt}  ")
            assert f"█ {length.tokens}" in re.sub("[▏▎▍▌▋▊▉]", "█", drawn)
            assert drawn.split()[-3:] == [f"{length.bytes}", f"{length.words}", f"{length.tokens_per_word:.2f}"]


async def test_prompts_are_added_edited_moved_and_removed(lab) -> None:
    async with lab() as (app, pilot):
        pane = await opened(app, pilot)
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, EditText))
        await pilot.press("ctrl+s")
        assert "empty" in says(app, "edit-says")
        app.screen.query_one(TextArea).text = "rain\nagain"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: len(pane.prompts) == 5)
        await counted(pane, pilot)
        assert pane.prompts[4] == "rain\nagain"
        assert pane.table.cursor == 4
        await pilot.press("K")
        assert pane.prompts[3] == "rain\nagain"
        assert [one.prompt for one in pane.lengths] == pane.prompts
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, EditText))
        await pilot.press(*" x", "ctrl+s")
        await until(pilot, lambda: pane.prompts[3] == "rain\nagain x")
        assert pane.lengths[3].tokens == len(app.lab.tokenizer.encode_ids("rain\nagain x"))
        await pilot.press("g")
        await until(pilot, lambda: app.query_one(PromptPane).text == "rain\nagain x")
        await pilot.press("delete")
        assert pane.prompts == list(EXAMPLE_PROMPTS)
        await pilot.press(*["delete"] * 5)
        assert pane.prompts == []
        assert "list is empty" in says(app)
        await pilot.press("enter", "delete", "J", "g")
        assert pane.table.row_count == 0


async def test_pasted_lines_become_prompts(lab) -> None:
    async with lab() as (app, pilot):
        pane = await opened(app, pilot)
        pane.table.post_message(Paste("one\n\n two\nthree\n"))
        await until(pilot, lambda: len(pane.prompts) == 7)
        await counted(pane, pilot)
        assert pane.prompts[4:] == ["one", " two", "three"]


async def test_a_file_of_prompts_is_opened_or_refused_in_one_line(lab, tmp_path: Path) -> None:
    good, empty, binary, large = (tmp_path / name for name in ("good", "empty", "binary", "large"))
    good.write_text("first\nsecond\n")
    empty.write_text("\n \n")
    binary.write_bytes(b"\x7fELF\x00\x01")
    with large.open("wb") as file:
        file.truncate(200_000_000)
    many = tmp_path / "many"
    many.write_text("x\n" * (MAX_PROMPTS + 1))
    async with lab() as (app, pilot):
        pane = await opened(app, pilot)
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, ChooseFile))
        field = app.screen.query_one(Input)
        for path, words in (
            (empty, "holds no line"),
            (binary, "is a binary file"),
            (large, "has 200,000,000 bytes; at most 16,000,000"),
            (many, f"the list takes {MAX_PROMPTS:,}"),
            (tmp_path / "missing", "cannot read"),
            (tmp_path, "cannot read"),
        ):
            field.value = str(path)
            await pilot.press("enter")
            await pilot.pause()
            assert words in says(app, "file-says")
        field.value = str(good)
        await pilot.press("enter")
        await until(pilot, lambda: pane.prompts[4:] == ["first", "second"])
        await counted(pane, pilot)


async def test_ten_thousand_prompts_are_counted_in_the_background_and_kept_in_order(lab) -> None:
    prompts = [f"the sky above the city {index}" for index in range(10_000)]
    async with lab() as (app, pilot):
        pane = await opened(app, pilot)
        pane.restore(prompts)
        await pilot.press(*"jjj")  # keys are taken while it counts
        await until(pilot, lambda: pane.table.row_count == 10_000, 60)
        await counted(pane, pilot)
        assert [one.prompt for one in pane.lengths] == prompts
        await pilot.press("ctrl+end")
        await until(pilot, lambda: "Prompt 10,000" in says(app, "prompt-detail"))
        assert line(pane, 9_999).startswith(" 10,000 the sky above the city 9999  ")


async def test_tokenizers_of_other_models_count_beside(lab, tokenizer) -> None:
    async with lab() as (app, pilot):
        pane = await opened(app, pilot)
        pane.count_beside([("org/other", tokenizer)])
        await counted(pane, pilot)
        ((name, numbers),) = pane.others
        assert name == "org/other"
        assert numbers == tokenizer.count(EXAMPLE_PROMPTS)
        assert len(pane.query(TokenFlow)) == 2
        await pilot.press("k")
        await counted(pane, pilot)
        assert pane.others == []


async def test_k_looks_for_other_models_in_the_cache(lab, tmp_path: Path) -> None:
    async with lab(cache_dir=tmp_path) as (app, pilot):
        await opened(app, pilot)
        await pilot.press("k")
        await until(pilot, lambda: any("brings another tokenizer" in note.message for note in app._notifications))


async def test_variants_run_as_one_batch_under_lane_b_and_stream_into_the_table(lab) -> None:
    async with lab(configs=SAMPLED) as (app, pilot):
        await opened(app, pilot)
        pane = app.query_one(VariantsPane)
        await pilot.press("f5")
        await until(pilot, lambda: len(pane.results) == 3 and not pane.running and all(r.reason for r in pane.results))
        assert [one.variant for one in pane.results] == [variant.name for variant in VARIANTS]
        assert all(len(one.steps) == 6 for one in pane.results)
        assert pane.results[1].prompt == VARIANTS[1].fill("the sky above")
        job = app.lab.generate([one.prompt for one in pane.results], [SAMPLED[1]] * 3)
        texts = {}
        async for event in job:
            if hasattr(event, "token"):
                texts[event.lane] = texts.get(event.lane, "") + event.token.text
        assert [one.text for one in pane.results] == [texts[0], texts[1], texts[2]]

        table = app.query_one("#variant-table", DataTable)
        table.focus()
        await pilot.press("s")
        await until(pilot, lambda: len(pane.results) == 6 and not pane.running and pane.results[0].reason is not None)
        assert [one.config.seed for one in pane.results] == [1, 1, 1, 0, 0, 0]
        assert table.row_count == 6
        await pilot.press("down", "enter")
        await until(pilot, lambda: isinstance(app.screen, VariantResultDialog))
        await pilot.press("right", "c")
        assert "when it was picked" in says(app, "variant-detail")
        await pilot.press("escape", "delete")
        await until(pilot, lambda: len(pane.results) == 5)


async def test_where_there_is_no_chance_another_seed_is_refused_with_the_reason(lab) -> None:
    async with lab() as (app, pilot):
        await opened(app, pilot)
        app.query_one("#variant-table", DataTable).focus()
        await pilot.press("s")
        await until(pilot, lambda: "uses no chance" in says(app, "variants-say"))
        assert app.query_one(VariantsPane).results == []


async def test_variants_are_edited_and_checked(lab) -> None:
    async with lab() as (app, pilot):
        await opened(app, pilot)
        pane = app.query_one(VariantsPane)
        app.query_one("#variant-table", DataTable).focus()
        await pilot.press("v")
        await until(pilot, lambda: isinstance(app.screen, EditText))
        app.screen.query_one(TextArea).text = "no place"
        await pilot.press("ctrl+s")
        assert "has no {prompt}" in says(app, "edit-says")
        app.screen.query_one(TextArea).text = "Sing: {prompt}"
        app.screen.query_one(Input).value = "song"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: len(pane.variants) == 4)
        assert (pane.variants[3].name, pane.variants[3].template) == ("song", "Sing: {prompt}")
        app.query_one("#variant-table", DataTable).move_cursor(row=3)
        await pilot.press("delete")
        assert pane.variants == list(VARIANTS)


async def test_three_system_messages_come_in_and_run_in_the_template(lab, tiny_llama: Path, tmp_path: Path) -> None:
    folder = chatting(tiny_llama, tmp_path / "chat", CHATML)
    async with lab(model=str(folder), configs=SAMPLED) as (app, pilot):
        await opened(app, pilot)
        pane = app.query_one(VariantsPane)
        app.query_one("#variant-table", DataTable).focus()
        await pilot.press("m")
        assert pane.variants == [*VARIANTS, *SYSTEM_VARIANTS]
        await pilot.press("f5")
        await until(pilot, lambda: len(pane.results) == 6 and not pane.running and all(r.reason for r in pane.results))
        assert [one.system for one in pane.results[3:]] == [one.system for one in SYSTEM_VARIANTS]
        prompt = app.query_one(PromptPane).text
        for variant, result in zip(pane.variants[3:], pane.results[3:]):
            conversation = variant.conversation(prompt)
            assert conversation is not None
            assert result.prompt_tokens == len(app.lab.tokenizer.encode_conversation(conversation).tokens)
        await pilot.press("down", "down", "down", "enter")
        await until(pilot, lambda: isinstance(app.screen, VariantResultDialog))
        assert "system: Answer in one word." in says(app, "variant-prompt")
        await pilot.press("escape", "e")
        await until(pilot, lambda: isinstance(app.screen, EditText))
        app.screen.query_one("#edit-system", TextArea).text = "Sing."
        await pilot.press("ctrl+s")
        await until(pilot, lambda: pane.variants[3].system == "Sing.")
        await pilot.press("m")  # two of the three are there: the third comes back
        assert pane.variants[6:] == [SYSTEM_VARIANTS[0]]
        await pilot.press("m")
        assert [one.system for one in pane.variants] == ["", "", "", "Sing."]


async def test_a_system_message_without_a_template_is_one_sentence(lab) -> None:
    async with lab(configs=SAMPLED) as (app, pilot):
        await opened(app, pilot)
        app.query_one("#variant-table", DataTable).focus()
        await pilot.press("m", "f5")
        await until(pilot, lambda: "needs a chat template, which this model lacks" in says(app, "variants-say"))
        assert app.query_one(VariantsPane).results == []


async def test_escape_stops_variants_and_keeps_what_is_written(lab, tiny_long: Path) -> None:
    long = GenerationConfig(max_new_tokens=60_000, ignore_eos=True)
    async with lab(model=str(tiny_long), configs=(long, long)) as (app, pilot):
        await opened(app, pilot)
        pane = app.query_one(VariantsPane)
        await pilot.press("f5")
        await until(pilot, lambda: bool(pane.results) and len(pane.results[0].steps) > 3)
        await pilot.press("escape")
        await until(pilot, lambda: not pane.running and pane.results[0].reason == "cancelled")
        assert not app.query_one(GeneratePane).running


async def test_hostile_prompts_stay_text(lab) -> None:
    async with lab() as (app, pilot):
        pane = await opened(app, pilot)
        prompts = ["[red]x[/]", "\x1b[31m", "a\tb\nc", "日本語" * 50, "👩‍👩‍👧" * 9]
        pane.restore(prompts)
        await counted(pane, pilot)
        for row in range(len(prompts)):
            drawn = line(pane, row)
            assert "\x1b" not in drawn
            assert "\n" not in drawn
            assert cells(drawn) == pane.table.size.width


async def test_a_long_prompt_s_number_is_of_all_its_tokens_though_the_first_are_shown(lab, tokenizer) -> None:
    async with lab() as (app, pilot):
        pane = await opened(app, pilot)
        pane.restore(["the sky above " * 3000])
        pane.count_beside([("org/other", tokenizer)])
        await counted(pane, pilot)
        numbers = [f"{pane.lengths[0].tokens:,}", f"{tokenizer.count(pane.prompts)[0]:,}"]
        assert pane.lengths[0].tokens > 2000
        await until(pilot, lambda: len(pane.query(".token-line")) == 2)
        shown = [str(line.query_one(Label).render()) for line in pane.query(".token-line")]
        assert [line.split()[-1] for line in shown] == numbers
        assert all(flow.tokens for flow in pane.query(TokenFlow))
        assert numbers[0] in says(app, "prompt-detail")


async def test_variants_show_more_of_their_text_where_there_is_room(lab) -> None:
    """At 200×50 each row is as high as its text, up to a few lines; on a low screen no more than there are."""
    long = tuple(replace(config, max_new_tokens=120) for config in SAMPLED)
    async with lab(size=(200, 50), configs=long) as (app, pilot):
        await opened(app, pilot)
        await pilot.press("f5")
        variants = app.query_one(VariantsPane)
        await until(pilot, lambda: len(variants.results) == len(VARIANTS) and not variants.running)
        await until(pilot, lambda: max(heights_of(variants)) > 1)
        heights = heights_of(variants)
        assert sum(heights) <= variants.size.height - 3
        for result, (shown, height) in zip(variants.results, zip(texts(variants), heights), strict=True):
            wanted = one_line(result.text.strip()).split()
            words = shown.replace("…", " …").split()
            assert shown.count("\n") == height - 1
            if height < 6:
                assert words == wanted, "all of it"
            else:
                assert words[:20] == wanted[:20]
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: variants.size.width <= 80 and sum(heights_of(variants)) <= variants.size.height - 3)
        assert any(text.endswith("…") for text in texts(variants)), "what has no room gives way to an ellipsis"
        await until(pilot, lambda: variants.table.max_scroll_y == 0)


def heights_of(variants: VariantsPane) -> list[int]:
    return [row.height for row in variants.table.ordered_rows]


def texts(variants: VariantsPane) -> list[str]:
    return [str(variants.table.get_row_at(row)[-1]) for row in range(variants.table.row_count)]
