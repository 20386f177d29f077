"""Instruction counts of functions from the files of callgrind."""

import callgrind
import pytest


def test_costs_are_those_of_the_function_itself():
    dump = """
events: Ir
fn=(1) cvops::box_nms(cvops::Cpu const&, float*, int)
12 100
+3 20
cfn=(2) sort_keys(int)
calls=2 40
14 5000
fn=(2)
40 3000
* 2000
fn=(3) unused()

fn=(1)
16 7
"""
    assert callgrind.costs(dump) == {"box_nms": 127, "sort_keys": 5000}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cvops::box_iou(cvops::Cpu const&, float*, long long)", "box_iou"),
        ("void cvops::box_iou<float>(cvops::Cpu const&, float*, long long)", "box_iou"),
        ("cvops::(anonymous namespace)::decode(int) [clone .isra.0]", "decode"),
        ("auto cvops::as_avx2<&cvops::iou_row, float*&>(float*&) [clone .isra.0]", "iou_row"),
        (
            "auto cvops::as_avx2<&(unsigned long long cvops::(anonymous namespace)::best_key"
            "<false>(cvops::Range const&)), cvops::Range&>(cvops::Range&) [clone .isra.0]",
            "best_key",
        ),
        (
            "cvops::Run::write(int)::{lambda(int)#1}::operator()(int) const",
            "Run::write::{lambda#1}",
        ),
        ("void std::__sort<std::pair<int, int>*, std::less<int> >(int*)", "std::__sort"),
    ],
    ids=[
        "function",
        "op of several dtypes",
        "clone",
        "vector function",
        "vector template",
        "lambda",
        "template",
    ],
)
def test_names_are_without_parameters_and_namespaces(name, text):
    assert callgrind.short(name) == text
