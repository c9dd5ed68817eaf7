"""The writer's tree, against the definition in RFC 6962 and against the verifier's own reading of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore import tree
from eventstore.tree import Range, Tree
from tests.verifier import trees
from verifier import merkle

LEAVES = trees.leaves(600)
SIZES = st.integers(0, len(LEAVES))


def grown(size: int) -> Tree:
    made = Tree()
    made.extend(LEAVES[:size])
    return made


def root_of(leaves: Range) -> bytes:
    """As a proof's hash is made from stored nodes, but with nodes by the definition."""
    nodes = tree.complete(leaves)
    assert [n.number << n.height for n in nodes][:1] == [leaves.start]
    return tree.joined([trees.head(LEAVES[n.number << n.height : n.number + 1 << n.height]) for n in nodes])


@given(SIZES)
def test_the_root_is_that_of_the_definition_and_of_the_verifier(size: int) -> None:
    assert grown(size).root() == trees.head(LEAVES[:size]) == merkle.root(LEAVES[:size])


@given(SIZES, SIZES)
def test_a_tree_goes_on_from_its_frontier(size1: int, size2: int) -> None:
    size1, size2 = sorted((size1, size2))
    begun = grown(size1)
    later = Tree(begun.size, begun.frontier)
    for leaf in LEAVES[size1:size2]:
        later.append(leaf)
    assert (later.size, later.frontier, later.root()) == (size2, grown(size2).frontier, trees.head(LEAVES[:size2]))


@given(SIZES.filter(bool), st.data())
def test_inclusion_is_proved_by_the_subtrees_of_the_definition(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = [root_of(leaves) for leaves in tree.inclusion(index, size)]
    assert proof == trees.path(index, LEAVES[:size])
    merkle.verify_inclusion(index, size, LEAVES[index], proof, trees.head(LEAVES[:size]))


@given(SIZES.filter(bool), st.data())
def test_consistency_is_proved_by_the_subtrees_of_the_definition(size2: int, data: st.DataObject) -> None:
    size1 = data.draw(st.integers(1, size2))
    proof = [root_of(leaves) for leaves in tree.consistency(size1, size2)]
    assert proof == trees.proof(size1, LEAVES[:size2])
    merkle.verify_consistency(size1, size2, trees.head(LEAVES[:size1]), trees.head(LEAVES[:size2]), proof)


@given(st.integers(0, 9))
def test_a_level_of_a_complete_subtree_folds_to_its_root(height: int) -> None:
    assert tree.folded(b"".join(LEAVES[: 1 << height])) == trees.head(LEAVES[: 1 << height])


def test_the_largest_trees_have_short_proofs() -> None:
    size = 2**63 - 1
    assert len(tree.inclusion(10**18, size)) <= 63
    assert len(tree.consistency(10**18, size)) <= 64


def test_nothing_is_proved_of_leaves_that_are_not_there() -> None:
    for index, size in ((0, 0), (5, 5), (-1, 5)):
        with pytest.raises(ValueError, match="has no leaf"):
            tree.inclusion(index, size)
    for size1, size2 in ((6, 5), (-1, 5)):
        with pytest.raises(ValueError, match="does not begin"):
            tree.consistency(size1, size2)
    assert tree.consistency(0, 5) == tree.consistency(5, 5) == []


def test_a_leaf_that_is_no_hash_is_refused_and_the_tree_is_as_before_it() -> None:
    made = Tree()
    with pytest.raises(ValueError, match="leaf 3 has 31 bytes"):
        made.extend([*LEAVES[:3], bytes(31)])
    assert (made.size, made.root()) == (3, trees.head(LEAVES[:3]))


@pytest.mark.parametrize(("size", "frontier"), [(3, 1), (0, 1), (4, 2), (-1, 64)])
def test_a_frontier_belongs_to_its_size(size: int, frontier: int) -> None:
    with pytest.raises(ValueError, match="no such frontier"):
        Tree(size, [bytes(32)] * frontier)
    with pytest.raises(ValueError, match="no such frontier"):
        Tree(1, [bytes(31)])
