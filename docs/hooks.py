def on_page_markdown(markdown: str, **_: object) -> str:
    return markdown
