"""Searches against brute force on vocabularies that are small enough to try every sequence."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import irnn
from irnn.recognition.decoding import SearchConfig, Tokens, beam_search, greedy_search, log_softmax

BEGIN, END, BLANK = 1, 2, 0
TOKENS = Tokens(BEGIN, END, forbidden=(BLANK,))
UNITS = (3, 4, 5)
VOCABULARY = 6


def markov_step(seed: int):
    """Logits that depend on the whole prefix, through a state of two numbers."""
    generator = np.random.default_rng(seed)
    table = generator.normal(0, 2, (VOCABULARY, VOCABULARY))
    mixing = generator.normal(0, 1, (2, VOCABULARY))

    def step(tokens, state):
        if state is None:
            state = {"s": np.zeros((len(tokens), 2))}
        s = np.stack([0.7 * state["s"][:, 0] + tokens, np.sin(state["s"][:, 1] + tokens)], axis=1)
        return table[tokens] + np.sin(s) @ mixing, {"s": s}

    return step


def brute_force(steps, weights, config: SearchConfig, limit: int) -> list[tuple[float, tuple[int, ...]]]:
    """(score, units) of every allowed sequence, best first; written without the search's scorer.

    The second step is a language model: it starts behind the end of another line.
    """
    found = []
    for length in range(limit + 1):
        for units in itertools.product(UNITS, repeat=length):
            total, states, allowed = 0.0, [None] * len(steps), True
            for position, unit in enumerate((*units, END)):
                scores = np.zeros(VOCABULARY)
                for k, (step, weight) in enumerate(zip(steps, weights, strict=True)):
                    last = units[position - 1] if position else (BEGIN, END)[k]
                    logits, states[k] = step(np.array([last]), states[k])
                    p = np.exp(logits[0] - logits[0].max())
                    scores += weight * np.log(p / p.sum())
                if unit == END and position < limit and config.eos_factor is not None:
                    allowed = scores[END] >= config.eos_factor * max(scores[u] for u in UNITS)
                total += scores[unit]
            if allowed:
                found.append((total / (length + 1) ** config.length_penalty, units))
    return sorted(found, reverse=True)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([0.0, 0.6, 1.0]), st.sampled_from([None, 1.0, 1.5]),
    st.sampled_from([0.0, 0.5]),
)  # fmt: skip
def test_a_wide_beam_finds_what_brute_force_finds(seed, limit, penalty, eos_factor, lm_weight):
    config = SearchConfig(
        beam=200, length_penalty=penalty, max_length_factor=0.0, max_length_extra=limit, eos_factor=eos_factor,
        lm_weight=lm_weight,
    )  # fmt: skip
    step, lm_step = markov_step(seed), markov_step(seed + 1) if lm_weight else None
    steps, weights = ([step, lm_step], [1.0, lm_weight]) if lm_weight else ([step], [1.0])
    expected = brute_force(steps, weights, config, limit)
    found = beam_search(step, 50, TOKENS, config, lm_step)
    assert [h.tokens for h in found] == [units for _, units in expected]
    np.testing.assert_allclose([h.score for h in found], [score for score, _ in expected], rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 1.5]), st.sampled_from([0.0, 0.4]))
def test_greedy_takes_the_best_unit_at_each_step_of_each_row(seed, eos_factor, lm_weight):
    config = SearchConfig(max_length_factor=0.1, max_length_extra=0, eos_factor=eos_factor, lm_weight=lm_weight)
    step, lm_step = markov_step(seed), markov_step(seed + 1) if lm_weight else None
    frames = [10, 60, 35]
    found = greedy_search(step, frames, TOKENS, config, lm_step)
    for count, hypothesis in zip(frames, found, strict=True):
        limit, units, total, states = int(0.1 * count), [], 0.0, [None, None]
        while True:
            last = np.array([units[-1] if units else BEGIN])
            logits, states[0] = step(last, states[0])
            scores = log_softmax(logits)[0]
            if lm_step:
                logits, states[1] = lm_step(last if units else np.array([END]), states[1])
                scores = scores + lm_weight * log_softmax(logits)[0]
            best = max(UNITS, key=lambda u: scores[u])
            may_end = eos_factor is None or scores[END] >= eos_factor * scores[best]
            if len(units) == limit or (may_end and scores[END] > scores[best]):
                total += scores[END]
                break
            units.append(best)
            total += scores[best]
        assert hypothesis.tokens == tuple(units)
        assert hypothesis.log_probability == pytest.approx(total)
        # One utterance alone gives what it gives in a batch; a beam of one follows the same path.
        (alone,) = greedy_search(step, [count], TOKENS, config, lm_step)
        assert alone.tokens == hypothesis.tokens
        assert alone.score == pytest.approx(hypothesis.score)


def test_a_wider_beam_finds_a_better_score_where_greedy_is_misled():
    table = np.full((VOCABULARY, VOCABULARY), -9.0)
    table[BEGIN, 3], table[BEGIN, 4] = 1.0, 0.9
    table[3, [3, 4, 5, END]] = 0.0  # after the best first unit everything is uncertain
    table[4, END] = 9.0

    def step(tokens, state):
        return table[tokens], {"s": np.zeros(len(tokens))}

    config = SearchConfig(max_length_factor=0, max_length_extra=3)
    (greedy,) = greedy_search(step, [1], TOKENS, config)
    best = beam_search(step, 1, TOKENS, SearchConfig(beam=3, max_length_factor=0, max_length_extra=3))[0]
    assert greedy.tokens[0] == 3
    assert best.tokens == (4,)
    assert best.score > greedy.score


@pytest.mark.parametrize("beam", [1, 3])
def test_a_language_model_starts_anew_behind_the_end_of_a_line(beam):
    given = []
    step, model = markov_step(1), markov_step(2)

    def lm_step(tokens, state):
        given.append((tokens.tolist(), state is None))
        return model(tokens, state)

    config = SearchConfig(beam=beam, max_length_factor=0, max_length_extra=4, lm_weight=0.5)
    for _ in range(2):
        given.clear()
        if beam == 1:
            greedy_search(step, [1], TOKENS, config, lm_step)
        else:
            beam_search(step, 1, TOKENS, config, lm_step)
        assert given[0] == ([END], True)
        assert len(given) > 1
        assert not any(fresh or BEGIN in tokens for tokens, fresh in given[1:])


def test_bad_settings_are_named():
    for changes, line in (
        ({"beam": 0}, "search.beam=0"), ({"lm_weight": -1.0}, "search.lm_weight=-1.0"),
        ({"eos_factor": 0.5}, "search.eos_factor=0.5"),
    ):  # fmt: skip
        with pytest.raises(irnn.IrnnError, match=line):
            SearchConfig(**changes)
    with pytest.raises(irnn.IrnnError, match="needs a language model"):
        greedy_search(markov_step(0), [5], TOKENS, SearchConfig(lm_weight=0.3))
