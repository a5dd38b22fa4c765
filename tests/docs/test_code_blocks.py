"""Every code block of the documents runs, or is listed here as not run, with the reason.

How a page is written, so that it runs:

- `bash`, `python`, `js` and `typescript` blocks run in their order, in one folder: a copy of the shop that `stage.prepare` makes.
- `<!-- not run: REASON -->` before a block: it is not run; `blocks.REASONS` has the reasons that there are.
- `<!-- background -->` before a block: its program stays until the end of the page. The next block runs once our service
  answers, or the address in `<!-- background: ADDRESS -->`.
- `<!-- exit status 3 -->` before a `bash` block: it ends so.
- `<!-- hidden bash`, code, `-->`: a block that readers do not see, for what a page takes for granted.
- `stand_ins.STAND_INS` has all that is replaced: hosts, ports, models of the hub, lengths of trainings. The servers that a page
  names run here. `pip install` and `make` only check that extras, packages and targets exist.
- `json`, `jsonl`, `yaml`, `toml`, `ini` and `dockerfile` blocks are parsed; `text` and unnamed ones are only shown.
"""

import re
from collections.abc import Iterator

import pytest

from tests.docs.blocks import PARSED, REASONS, RUN, SHOWN, Block, blocks, pages
from tests.docs.parsing import PARSERS
from tests.docs.stage import NAMES, Stage
from tests.docs.stand_ins import replaced

BLOCKS = {page: blocks(page) for page in pages()}
ALL = [block for each in BLOCKS.values() for block in each]
COMMAND = re.compile(r"^(\$ )?(cir-vectorizer|curl|docker|git|helm|kubectl|make|npm|pip|python3?) ", re.MULTILINE)
PLACEHOLDER = re.compile(r"…|(?<!\w)\.\.\.(?!\w)")
OUTPUT_LINES = 60


def runnable(page: str) -> list[Block]:
    return [block for block in BLOCKS[page] if block.runs]


def page_parameter(page: str) -> object:
    """Return a page as a parameter; it is `live` if it needs a database."""
    text = "\n".join(block.code for block in runnable(page))
    live = any(re.search(NAMES[name], text) for name in ("qdrant", "weaviate"))
    return pytest.param(page, id=page, marks=[pytest.mark.slow, *([pytest.mark.live] if live else [])])


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("documents"))
    yield made
    made.close()


@pytest.mark.parametrize("page", [page_parameter(page) for page in BLOCKS if runnable(page)])
def test_the_blocks_of_a_page_run(page, stage):
    status, output = stage.run(page, runnable(page))
    if status != 0:
        place, _, rest = output.rpartition("\n=== ")[2].partition("\n")
        failed = "took too long" if status is None else "failed"
        tail = "\n".join(rest.splitlines()[-OUTPUT_LINES:])
        pytest.fail(f"{place} {failed}. With the stand-ins of tests/docs/stand_ins.py it reads:\n{tail}", pytrace=False)


@pytest.mark.parametrize("block", [block for block in ALL if block.reason], ids=lambda block: block.place)
def test_a_block_that_is_not_run_says_why(block):
    assert block.reason.startswith(REASONS), f"{block.place}: the reason must begin with one of {REASONS}"
    if block.language in PARSERS:
        PARSERS[block.language](block.code)
    pytest.skip(f"{block.place} is not run: {block.reason}")


def test_every_other_block_can_be_run_or_parsed_or_is_only_shown():
    faults = []
    for block in ALL:
        if block.language not in RUN + PARSED + SHOWN:
            faults.append(f"{block.place}: unknown language '{block.language}'; one of {RUN + PARSED + SHOWN[1:]}")
        elif block.language in SHOWN and not block.reason and COMMAND.search(block.code):
            faults.append(f"{block.place}: this looks like commands; name the block bash")
        elif block.runs and (found := PLACEHOLDER.search(replaced(block, {}).code)):
            faults.append(f"{block.place}: '{found[0]}' cannot be run; write it out, or mark the block as not run")
        elif block.language in PARSED:
            try:
                PARSERS[block.language](block.code)
            except Exception as error:
                faults.append(f"{block.place}: {error}")
    assert not faults, "\n".join(faults)


def test_remarks_before_blocks_are_read():
    text = (
        "<!-- not run: GPU -->\n```bash\na\n```\n\n- In a list:\n  <!-- background: http://localhost:9/ -->\n"
        "  ```python title=\"x.py\"\n  b\n  ```\n\n<!-- hidden python\nc = '''\n```'''\n-->\n\n<!-- not run: GPU -->\n"
        'Words.\n\n```\nd\n```\n\n=== "Tab"\n\n    ```json\n    {}\n    ```\n'
    )
    found = [(each.line, each.language, each.code.strip(), each.reason, each.background) for each in blocks("p", text)]
    assert found == [
        (3, "bash", "a", "GPU", False),
        (9, "python", "b", "", True),
        (13, "python", "c = '''\n```'''", "", False),
        (21, "", "d", "", False),
        (27, "json", "{}", "", False),
    ]


def test_addresses_and_models_are_replaced():
    ports = {"service": 11, "qdrant": 22, "qdrant_grpc": 23, "weaviate": 33, "weaviate_grpc": 34, 4318: 44}
    for language, code, played in (
        ("bash", "curl http://HOST:8000/m/lincir-vit-l", "curl http://127.0.0.1:11/m/tiny"),
        ("bash", "--to qdrant://localhost/shop --grpc-port 6334", "--to qdrant://127.0.0.1:22/shop --grpc-port 23"),
        ("bash", "--in weaviate://localhost/Shop", "--in weaviate://127.0.0.1:33/Shop --grpc-port 34"),
        ("python", 'connect_to_local(host="HOST")', 'connect_to_local(host="HOST", grpc_port=34)'),
        ("python", "connect_to_local()", "connect_to_local(port=33, grpc_port=34)"),
        ("bash", "http://localhost:4318 --steps 10000", "http://127.0.0.1:44 --steps 10000"),
        ("bash", "--model open_clip:ViT-B-32,pretrained=openai --out o", "--model tiny --out o"),
        ("python", 'load("open_clip:hf-hub:Marqo/marqo-fashionSigLIP")', 'load("tiny")'),
    ):
        assert replaced(Block("p", 1, language, code), ports).code == played


@pytest.mark.slow
def test_blocks_hand_on_names_folder_and_environment_until_one_fails(stage):
    page = [
        Block("p.md", 2, "bash", "mkdir deep && cd deep\nexport COLOUR=red\n"),
        Block("p.md", 6, "python", "import os\nseen = os.environ['COLOUR'], os.path.basename(os.getcwd())\n"),
        Block("p.md", 10, "bash", "cir-vectorizer search\n", status=2),
        Block("p.md", 14, "python", "print(seen)\nmissing\n"),
        Block("p.md", 18, "bash", "touch ../too-far\n"),
    ]
    status, output = stage.run("p.md", page)
    assert status == 1
    last = output.rpartition("\n=== ")[2]
    assert last.startswith("p.md:14 (python)\n")
    assert "('red', 'deep')" in last
    assert 'p.md", line 15, in <module>' in last
