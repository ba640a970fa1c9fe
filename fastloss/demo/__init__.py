"""The interactive demo: a 2-D linear classifier in a browser tab or a notebook.

The page draws, and Python computes every loss, score and gradient that it shows. `fastloss demo`
serves the page (`server`), and `widget` shows it in a notebook. Both carry the same messages
between the page and a `session.Session`, which holds the state of one tab. The messages are JSON
objects.

From the page, with a number ``id`` that the answer repeats:

====================================  ==============================================================
``do``, other fields                  answer
====================================  ==============================================================
open, address                         the first message: view and ``setup`` (choices, limits, box).
                                      With an ``address``, the state becomes that of the address.
                                      If it is damaged, the answer has an ``error`` beside the view
                                      of the start state
move, point, x, y                     view; points outside the box are moved to its edge
add, x, y, class                      view; the new point is the last one
delete, point                         view
label, point, class                   view; changes the class of a point
weight, class, column, value          view; column 0 is the weight of x, 1 that of y, 2 the bias
set, any of `state.SETTINGS`          view
update                                view after one update
run                                   view with ``running`` true
seen                                  while running: view after one more update; else no answer
stop, randomise, reset                view
check                                 ``check``: see `studies.gradient_check`
surface, a, b, radius                 ``surface``: see `studies.surface`; a, b are [class, column]
compare, updates                      ``compare``: see `studies.compare`
cost, seconds                         ``cost``, several times, the last one with ``running`` false:
                                      see `costs.Entry`; each gets about ``seconds`` (default 1)
cancel, what                          ``cancelled``; ``what`` is check, surface, compare or cost
====================================  ==============================================================

An answer with ``error`` instead says in words what is wrong with the message; the state is then as
before. `readings.view` describes a view. Check, surface, compare and cost run in the background, of
the state at that time. A new one replaces an earlier one of its kind, which then never answers. A
view whose ``id`` is null is sent when a backend has become ready.
"""
