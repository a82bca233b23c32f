"""The report: one HTML page, whole in itself, of what was trained, judged or checked.

`Report` in `page.py` is what a page is made of; `charts.py` and `tables.py` are its parts, which
notebooks show as well. Plots for files are in `judging/plots.py`, and found here too:
`minitl.report.learning_curves(history)` is matplotlib's figure.
"""

from minitl.naming import attributes_of

__getattr__ = attributes_of(
    __name__,
    {
        "Report": "minitl.report.page",
        "augmentation_sheet": "minitl.judging.plots",
        "confusion_matrix_plot": "minitl.judging.plots",
        "learning_curves": "minitl.judging.plots",
        "prediction_sheet": "minitl.judging.plots",
        "rate_test_plot": "minitl.judging.plots",
    },
)
