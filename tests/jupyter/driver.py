"""Drive a notebook in JupyterLab as a person would, and ask its kernel what it knows."""

from __future__ import annotations

from playwright.sync_api import Locator, Page

_KERNEL_IDLE = """() => {
  const panel = window.jupyterapp?.shell?.currentWidget;
  return panel?.sessionContext?.session?.kernel?.status === 'idle'
    && panel.content.widgets.length > 0;
}"""
_CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets
  .filter(c => c.model.type === 'code' && c.model.sharedModel.getSource().trim())
  .map(c => { const m = c.model.sharedModel.toJSON();
    const error = (m.outputs || []).find(o => o.output_type === 'error');
    return [m.execution_count, error ? error.ename + ': ' + error.evalue : null]; })"""
_ASK = """async (code) => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const future = kernel.requestExecute({code: '', silent: false, store_history: false,
    user_expressions: {value: code}});
  const reply = await future.done;
  const value = reply.content.user_expressions.value;
  if (value.status !== 'ok') throw new Error(value.ename + ': ' + value.evalue);
  return value.data['text/plain'];
}"""


class Notebook:
    """An open notebook."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        page.goto(address)
        page.wait_for_function(_KERNEL_IDLE, timeout=90_000)

    def run_all(self, seconds: float = 180) -> None:
        """Run every cell; fails at the first error, where JupyterLab stops without a word."""
        self.page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        cells: list = []
        for _ in range(int(seconds * 5)):
            cells = self.page.evaluate(_CELLS)
            errors = [error for _, error in cells if error]
            assert not errors, errors
            if all(count is not None for count, _ in cells):
                return
            self.page.wait_for_timeout(200)
        raise AssertionError(f"not every cell ran within {seconds} s: {cells}")

    def ask(self, expression: str) -> str:
        """``repr`` of an expression in the kernel."""
        return self.page.evaluate(_ASK, expression)

    def until(self, expression: str, seconds: float = 30) -> None:
        """Wait until an expression is true in the kernel."""
        for _ in range(int(seconds * 5)):
            if self.ask(expression) == "True":
                return
            self.page.wait_for_timeout(200)
        raise AssertionError(f"never true: {expression}; {self.ask(expression)}")

    def drag(self, slider: Locator, start: float, end: float) -> None:
        """Drag a slider's handle by the mouse, between two shares of its width."""
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        assert box is not None
        middle = box["y"] + box["height"] / 2
        self.page.mouse.move(box["x"] + box["width"] * start, middle)
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + box["width"] * end, middle, steps=8)
        self.page.mouse.up()

    def output(self, text: str) -> Locator:
        """The output area of the code cell whose source contains `text`."""
        cell = self.page.locator(".jp-CodeCell").filter(
            has=self.page.locator(".jp-InputArea", has_text=text)
        )
        return cell.first.locator(".jp-OutputArea")
