"""Evaluation imports nothing heavy: a model is an argument."""

import pkgutil
import subprocess
import sys

import cir_vectorizer.cli.evaluate
import cir_vectorizer.evaluate


def test_no_module_of_evaluation_loads_torch_or_pillow():
    packages = (cir_vectorizer.evaluate, cir_vectorizer.cli.evaluate)
    names = [module.name for each in packages for module in pkgutil.walk_packages(each.__path__, f"{each.__name__}.")]
    assert {"cir_vectorizer.evaluate.queries", "cir_vectorizer.cli.evaluate.pinpoint"} <= set(names)
    program = f"import sys, {', '.join(names)}; print(*sorted({{'torch', 'PIL', 'pyarrow', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
