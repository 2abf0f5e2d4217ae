"""Write docs/configuration.md from the configuration's own descriptions: every key, its default, its meaning."""

from pathlib import Path

from medgan.config import describe

HEAD = """# Configuration

One YAML file holds a domain's data, preprocessing, networks, training and study; `medgan train` and `medgan compare`
read the same file. Any key can be changed on the command line: `training.steps=500`. An unknown key is refused with
the nearest known one. `[]` stands for an item of a list. This page is made by `make docs`.

| key | default | meaning |
| --- | --- | --- |
"""


def main() -> None:
    rows = [f"| `{key}` | `{default}` | {meaning} |" for key, default, meaning in describe()]
    path = Path(__file__).parent / "configuration.md"
    path.write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
