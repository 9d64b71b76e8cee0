"""The harness's YAML stands alone after it was read, and its functions are found by module."""

from importlib import import_module

from tasks.benchmarks.harness import Function, harness_version, read_config, write_config


def test_includes_are_merged_and_functions_named_by_module() -> None:
    config = read_config("truthfulqa/truthfulqa_mc2.yaml")
    assert (config["task"], config["validation_split"], "include" in config) == ("truthfulqa_mc2", "validation", False)
    assert config["process_results"] == Function("lm_eval.tasks.truthfulqa.utils.process_results_mc2")
    text = write_config(read_config("winogrande/default.yaml")).decode()
    assert "doc_to_text: !function 'lm_eval.tasks.winogrande.preprocess_winogrande.doc_to_text'" in text


def test_a_function_so_named_can_be_imported() -> None:
    module, _, name = read_config("winogrande/default.yaml")["doc_to_choice"].rpartition(".")
    item = {"sentence": "It was _ then.", "option1": "he", "option2": "she"}
    assert getattr(import_module(module), name)(item) == ["It was he", "It was she"]
    assert harness_version().startswith("0.4.")
