"""Valid blueprints that resemble bad ones: no findings are allowed."""

from __future__ import annotations

from bad.composite_cases import CHOICE, LABEL, NOTE, ONWARDS, both, each, known, machine, search
from bad.meaning_cases import HEAD, TOOLED, loop

TOP = 'version: "1"\nname: good\nagents: {a: {model: b:c}}\nsteps:\n'

GOOD = {
    "messages-to-known-targets": 'version: "1"\nname: good\nnotify: {failed: [ops], paused: [ops]}\n'
    "steps: [{kind: sleep, name: s, for: 1s}]\n",
    "outputs-scored-by-known-evaluators": 'version: "1"\nname: good\nevaluate: [polite]\n'
    "agents: {a: {model: b:c}}\nsteps: [{name: s, agent: a, evaluate: [polite]}]\n",
    "a-run-that-begins-again-in-a-branch-or-at-the-end": HEAD
    + "  - kind: conditional\n    name: way\n    switch: steps.sort.output.label\n    branches:\n"
    "      bug: [{kind: continue_as_new, name: again}]\n    default: []\n"
    "  - {kind: continue_as_new, name: maybe, when: steps.sort.output.score > 3}\n"
    "  - {name: late, agent: sorter}\n  - {kind: continue_as_new, name: next, input: {text: '{{ steps.late.output.label }}'}}\n",
    "personal-data-by-field-and-by-step": 'version: "1"\nname: good\n'
    "input_schema: {type: object, properties: {mail: {type: string, pii: keep}, note: {type: string, pii: scrub}, to: {type: string, pii: tokenise}}}\n"
    "agents: {a: {model: b:c}}\nsteps:\n  - {name: a, agent: a, pii: scrub, fallback: {agent: a, pii: keep}}\n"
    "  - {kind: granular, name: g, agent: a, pii: tokenise}\n",
    "same-name-in-two-branches": HEAD
    + "  - kind: conditional\n    name: way\n    switch: steps.sort.output.label\n    branches:\n"
    "      bug: [{name: tell, agent: sorter}]\n      refund: [{name: tell, agent: sorter}]\n",
    "branch-called-as-its-step": HEAD
    + "  - kind: conditional\n    name: way\n    switch: steps.sort.output.label\n    branches:\n"
    "      bug: [{name: bug, agent: sorter}]\n    default: []\n",
    "divided-by-what-is-not-zero": HEAD + "  - {name: b, agent: sorter, when: '10 / 2 > 0 && 7 % 3 == 1'}\n",
    "two-agents-with-one-tool": 'version: "1"\nname: good\nagents:\n  a: {model: b:c, tools: ["skills.crm:echo"]}\n'
    '  d: {model: b:c, tools: ["skills.crm:echo"]}\nsteps: [{name: a, agent: a}, {name: d, agent: d}]\n',
    "a-body-without-tools": HEAD.replace(
        "{max_tokens: 9}", "{max_tokens: 9, extra_body: {top_k: 4, tools: []}}"
    ),
    "a-client-that-does-not-retry": HEAD.replace("{max_tokens: 9}", "{max_tokens: 9, max_retries: 0}"),
    "default-by-get": HEAD + '  - {name: b, agent: sorter, input: \'{{ get(input, "note", "") }}\'}\n',
    "has": HEAD + "  - {name: b, agent: sorter, when: 'has(input.note) && input.note != \"\"'}\n",
    "words-that-look-like-keys": TOP
    + "  - {name: a, agent: a, input: 'sk-learn and ghp_short and AKIA and https://example.org/a:b@c%2e'}\n",
    "braces-in-text": TOP + "  - {name: a, agent: a, input: 'Answer as {\"label\": 1}.'}\n",
    "literal-instructions": 'version: "1"\nname: good\n'
    "agents: {a: {model: b:c, template: false, instructions: 'Write {{ name }} as it is.'}}\nsteps: [{name: a, agent: a}]\n",
    "loop-with-carry": HEAD
    + loop(
        "    until: steps.try.output.score > 7 || loop.index > 3\n    max_iterations: 5\n    on_limit: continue\n"
        "    carry: {best: {initial: 0, next: steps.try.output.score}, last: {initial: null, next: steps.try.output.label}}\n"
        '    output: "{{ steps.try.output.label }} {{ loop.best }}"\n'
    )
    + "  - {name: b, agent: sorter, when: '!steps.again.exhausted', input: '{{ steps.again.output }}'}\n",
    "a-counter-that-stays-whole": HEAD
    + loop(
        "    until: loop.n % 2 == 1 && loop.n * 0.5 > 1.0\n    max_iterations: 5\n"
        "    carry: {n: {initial: 0, next: loop.n + loop.more}, more: {initial: 1, next: steps.try.output.score}}\n"
    ),
    "nested-loops": HEAD + "  - kind: loop\n    name: outer\n    until: 'steps.inner.exhausted'\n    steps:\n"
    "      - kind: loop\n        name: inner\n        until: steps.x.output.score > 1\n        steps: [{name: x, agent: sorter, input: '{{ loop.index }}'}]\n",
    "save-and-append": HEAD
    + "  - {name: b, agent: sorter, save: {label: output.label, count: output.score, notes: {append: output.label}}}\n"
    "  - {name: c, agent: sorter, input: 'so far {{ has(context.notes) ? context.notes : [] }}'}\n",
    "callables": HEAD + "  - {name: b, call: 'skills.crm:plain'}\n  - {name: c, call: 'skills.crm:echo'}\n"
    "  - {name: d, call: 'skills.crm:lookup', with: {email: '{{ input.text }}', limit: 3}, when: 'skills.crm:plain'}\n",
    "around-a-step": HEAD
    + "  - {name: b, agent: sorter, processors: {input: ['skills.crm:plain'], output: ['skills.crm:plain', 'skills.crm:echo']},\n"
    "     validators: ['skills.crm:plain']}\n",
    "fallback": HEAD
    + "  - {name: fallback, agent: sorter, fallback: {agent: sorter, fallback: {call: 'skills.crm:plain'}}}\n"
    "  - {name: look, call: 'skills.crm:lookup', with: {email: a}, fallback: {call: 'skills.crm:lookup', validators: ['skills.crm:plain']}}\n"
    "  - {name: b, agent: sorter, when: '!steps.fallback.fell_back && !steps.look.fell_back', input: '{{ steps.fallback.output }}'}\n",
    "output-of-a-fallback-of-the-same-agent": HEAD
    + "  - {name: a, agent: sorter, fallback: {agent: sorter, input: '{{ previous.label }}'}}\n"
    "  - {name: b, agent: sorter, input: '{{ steps.a.output.label }}'}\n",
    "tasks-that-are-awaited": HEAD
    + "  - {name: b, agent: sorter, config: {execution_mode: background}, save: {label: output.task_id}}\n"
    "  - {kind: hitl, name: ask, message: 'ok?', answer_schema: {type: boolean}, config: {execution_mode: background}}\n"
    "  - kind: map\n    name: each\n    over: '[1, 2]'\n"
    "    steps: [{name: one, agent: sorter, config: {execution_mode: background}}]\n"
    "  - {kind: await, name: first, task: b}\n"
    "  - {name: d, agent: sorter, input: x, config: {execution_mode: background}}\n"
    "  - {name: e, agent: sorter, input: y, save: {label: output.label}}\n"
    "  - {kind: await, name: second, task: d}\n"
    "  - {kind: await, name: both, tasks: [b, ask], on_failure: skip}\n"
    "  - {kind: await, name: all, tasks: '{{ steps.each.output }}', on_failure: {output: '{{ input.text }}'}}\n"
    "  - {name: c, agent: sorter, input: '{{ steps.b.output.task_id }}'}\n",
    "map-over-workers": HEAD + "  - kind: map\n    name: each\n    over: '[1, 2]'\n"
    "    config: {executor: queue, queue: default, batch_size: 10000, priority: 2, max_retries: 1, budget: {total_cost_usd_limit: 0.5}}\n"
    "    steps: [{kind: map, name: inner, over: '[item]', config: {executor: queue, budget: {total_cost_usd_limit: 0.1}}, steps: [{name: one, agent: sorter}]}]\n"
    "budget: {total_cost_usd_limit: 1}\n",
    "callables-on-executors": HEAD + "  - {name: b, call: 'skills.crm:plain', config: {executor: threads}}\n"
    "  - kind: map\n    name: each\n    over: '[1, 2]'\n"
    "    config: {executor: threads, resources: {cpu: 0.5, memory: 8GiB}}\n"
    "    steps: [{name: one, agent: sorter}, {name: two, call: 'skills.crm:plain'}]\n",
    "tools-on-executors": TOOLED
    % "{call: skills.crm:plain, executor: cores, resources: {cpu: 2}, effect: read}, "
    "{call: skills.crm:echo, executor: wide, effect: read, with: {text: {secret: SOME_KEY}}}, {call: skills.crm:pair, effect: read, with: {one: {secret: SOME_KEY}}}"
    + "steps: [{kind: granular, name: s, agent: a, enforce_idempotency: true}]\n",
    "tasks-in-a-queue-under-a-budget": HEAD
    + "  - {name: b, agent: sorter, config: {execution_mode: background, queue: default, priority: -2, budget: {total_cost_usd_limit: 0.5}}}\n"
    "  - {kind: await, name: first, task: b}\n"
    "budget: {total_cost_usd_limit: 1, wall_time_s_limit: 1h}\n",
    "attempts-of-a-composite": HEAD
    + each("    config: {timeout_s: 5m, max_retries: 2, retry: {backoff: fixed, on: [StepTimeout]}}\n"),
    "hitl": HEAD
    + "  - {kind: hitl, name: ask, message: 'Send? {{ previous }}', answer_schema: {type: object, required: [ok], properties: {ok: {type: boolean}}}}\n"
    "  - {name: b, agent: sorter, when: steps.ask.output.ok}\n",
    "calls-with-an-effect": HEAD
    + "  - {name: a1, call: 'skills.crm:plain', effect: read, config: {max_retries: 3}}\n"
    "  - {name: a2, call: 'skills.crm:plain', effect: idempotent, enforce_idempotency: true, in_doubt: retry_same_key, config: {max_retries: 3}}\n"
    "  - {name: a3, call: 'skills.crm:plain', enforce_idempotency: true, in_doubt: reconcile, reconcile: 'skills.crm:plain'}\n"
    "  - {name: a4, call: 'skills.crm:plain', config: {max_retries: 1}}\n",
    "files-for-a-model": HEAD
    + "  - {name: b, agent: sorter, files: [scans/march.png, '{{ input.text }}'], fallback: {agent: sorter, files: []}}\n"
    "  - {name: c, agent: sorter, files: '{{ input.text }}', fallback: {call: 'skills.crm:plain'}}\n",
    "conversations-with-a-limit-of-their-history": HEAD
    + "  - {kind: granular, name: a1, agent: sorter, input: Sort it., history: {max_tokens: 3}}\n"
    "  - {kind: granular, name: a2, agent: sorter, input: 'Sort {{ input.text }}', history: {max_tokens: 3, keep: summary}}\n"
    "  - {kind: granular, name: a3, agent: sorter, history: full, on_limit: pause}\n",
    "event-with-a-deadline": HEAD
    + "  - {kind: event, name: paid, event: order.paid, key: input.text, event_schema: {type: object, required: [n], properties: {n: {type: integer}}}, deadline_s: 72h, on_deadline: {answer: {n: 0}}}\n"
    + "  - {name: use, agent: sorter, input: '{{ steps.paid.output.n }}'}\n",
    "hitl-with-a-deadline": HEAD
    + "  - {kind: hitl, name: ask, message: m, answer_schema: {type: boolean}, deadline_s: 72h, on_deadline: {answer: false}}\n"
    "  - {kind: hitl, name: other, message: '{{ previous }}', deadline_s: 90, on_deadline: fail}\n"
    "  - {kind: hitl, name: more, message: m, answer_schema: {type: string}, deadline_s: 1.5, on_deadline: {answer: '{{ input.text }}'}}\n",
    "if-without-else-passes-on": HEAD
    + "  - {kind: conditional, name: way, if: 'steps.sort.output.score > 1', then: [{name: x, agent: sorter}]}\n"
    "  - {name: b, agent: sorter, input: '{{ steps.way.output.label }}'}\n",
    "switch-on-a-boolean": HEAD + "  - {kind: conditional, name: way, switch: steps.sort.output.score > 1,\n"
    "     branches: {'true': [{name: x, agent: sorter}], 'false': [{name: y, agent: sorter}]}}\n",
    "loop-sees-the-steps-before-it": HEAD
    + "  - {kind: loop, name: again, until: steps.sort.output.score > steps.try.output.score,\n"
    "     steps: [{name: try, agent: sorter, input: '{{ steps.sort.output.label }}'}]}\n",
    "append-to-a-list-of-anything": 'version: "1"\nname: good\ncontext_schema: {properties: {all: {type: array}}}\n'
    "steps: [{name: a, call: 'skills.crm:plain', save: {all: {append: output}}}]\n",
    "a-map-and-a-string-in-an-expression": HEAD
    + '  - {name: b, agent: sorter, input: \'{{ {"a": {"b": "}}"}}.a.b }}\'}\n',
    "logic-in-braces": HEAD + "  - {name: b, agent: sorter, when: '{{ input.text == \"a\" }}'}\n",
    "step-called-yes": TOP
    + "  - {name: yes, agent: a}\n  - {name: b, agent: a, input: '{{ steps.yes.output }}'}\n",
    "run-facts": TOP + "  - {name: b, agent: a, input: '{{ run.id }} of {{ run.started_at }}'}\n",
    "machine-that-asks-what-has-run": HEAD
    + machine(
        ONWARDS,
        edit="{steps: [{name: fix, agent: sorter, input: '{{ steps.check.output.label }}'}], transitions: [{to: judge}]}",
        keys=", input: '{{ steps.write.output.label }} {{ has(steps.fix.output) ? steps.fix.output.label : \"\" }}'",
        rest="    output: '{{ steps.check.output.score }} {{ previous.label }}'\n",
    ),
    "two-states-with-a-step-of-one-name": HEAD
    + machine(
        ONWARDS,
        edit="{steps: [{name: write, agent: sorter}], transitions: [{to: judge}]}",
        keys=", input: '{{ steps.write.output.label }}'",
    ),
    "one-state": HEAD
    + "  - {kind: state_machine, name: m, initial: only, final: [only], states: {only: {}}}\n",
    "map-of-a-declared-list": 'version: "1"\nname: good\nbudget: {requests_limit: 9}\nagents: {a: {model: b:c}}\n'
    "input_schema: {type: object, required: [docs], properties: {docs: {type: array, items: {$ref: '#/$defs/Doc'}}},\n"
    "  $defs: {Doc: {type: object, required: [title], properties: {title: {type: string}}}}}\n"
    "steps: [{kind: map, name: m, over: input.docs, as: doc, steps: [{name: x, agent: a,\n"
    "  input: '{{ doc.title }} {{ item.title }} {{ previous.title }} {{ index + 1 }}'}]}]\n",
    "map-that-keeps": HEAD + each("    merge: context_update\n", step=f"agent: sorter{NOTE}"),
    "map-that-says-that-nothing-is-kept": HEAD + each("    merge: no_merge\n", step=f"agent: sorter{LABEL}"),
    "map-that-keeps-failures": HEAD
    + each("    keep: failed\n    on_error: skip\n")
    + "  - {name: b, agent: sorter, input: '{{ steps.each.output.map(one, string(one.index)).join() }}'}\n",
    "map-that-keeps-nothing": HEAD
    + each("    keep: none\n    on_error: skip\n")
    + "  - {name: b, agent: sorter, input: '{{ steps.each.failed }} of the items failed'}\n",
    "map-where-the-last-wins": HEAD + each("    merge: overwrite\n", step=f"agent: sorter{LABEL}"),
    "map-inside-a-map": HEAD
    + each(
        "    as: word\n",
        step="kind: map, over: 'word.split(\" \")', as: part, steps: [{name: two, agent: sorter,\n"
        "      input: '{{ word }} {{ part }}'}]",
    ),
    "map-over-a-callable": HEAD + each("", over="skills.crm:plain"),
    "map-results": HEAD
    + each("    on_error: skip\n")
    + "  - {name: b, agent: sorter, when: steps.each.failed == 0, input: '{{ steps.each.output.map(o, o.label).join(\", \") }}'}\n",
    "map-collected": HEAD
    + each(
        "    on_error: collect\n    output: '{{ previous.filter(r, r.output != null).map(r, r.output.label) }}'\n"
    ),
    "map-collected-with-errors": HEAD
    + each("    on_error: collect\n    output: '{{ previous.filter(r, !r.ok).map(r, r.index) }}'\n"),
    "branches-that-append": HEAD + both(NOTE, NOTE),
    "choice-of-listed-agents": CHOICE.replace("critc", "critic")
    + "  - {name: say, agent: {one_of: [writer, critic], by: steps.plan.output}, thread: talk}\n"
    + "  - {kind: granular, name: more, agent: {one_of: [writer, critic], by: skills.crm:plain}, thread: talk}\n",
    "an-answer-that-a-thread-keeps": HEAD.replace(", save: {label: output.label}", "").replace(
        "agent: sorter,", "agent: sorter, thread: talk,"
    )
    + "  - {name: tell, agent: sorter, thread: talk, input: Go on.}\n",
    "branches-on-threads-of-their-own": HEAD + both(", thread: one", ", thread: two"),
    "items-with-a-thread-each": HEAD + each("", step="agent: sorter, thread: talk"),
    "branches-of-which-one-thread-stays": HEAD
    + both(", thread: talk", ", thread: talk", "    merge: keep_first\n"),
    "branches-that-are-mapped": HEAD + both(LABEL, LABEL, "    field_mapping: {two: [notes]}\n"),
    "branches-of-which-one-wins": HEAD + both(LABEL, LABEL, "    merge: keep_first\n"),
    "branches-merged-by-a-callable": HEAD + both(LABEL, LABEL, "    merge: skills.crm:fold\n"),
    "branches-with-steps-of-one-name": HEAD + both("", "").replace("name: b", "name: a"),
    "branch-written-in-both-ways-of-one": HEAD
    + both(LABEL, "").replace(
        f"{{name: a, agent: sorter{LABEL}}}",
        "{kind: conditional, name: c, if: 'true', then: [{name: a, agent: sorter, save: {label: output.label}}],"
        " else: [{name: d, agent: sorter, save: {label: output.label}}]}",
    ),
    "map-inside-a-branch-that-keeps-nothing": HEAD
    + both(LABEL, "").replace(
        "{name: b, agent: sorter}",
        f"{{kind: map, name: m, merge: no_merge, over: '[1]', steps: [{{name: b, agent: sorter{LABEL}}}]}}",
    ),
    "parallel-output": HEAD
    + both("", "", "    output: '{{ previous.one.label }} {{ previous.two.label }}'\n")
    + "  - {name: more, agent: sorter, when: steps.both.failed == 0}\n",
    "parallel-gives-its-branches": HEAD
    + both("", "")
    + "  - {name: more, agent: sorter, input: '{{ steps.both.output.one.label }}'}\n",
    "router-by-a-callable": HEAD
    + both("", "", "    router: skills.crm:plain\n    input: '{{ steps.sort.output.label }}'\n", "router")
    + "  - {name: more, agent: sorter, input: '{{ has(steps.both.output.one) ? steps.both.output.one.label : \"\" }}'}\n",
    "router-by-an-agent": 'version: "1"\nname: good\n'
    "agents: {a: {model: b:c, output_schema: {type: array, items: {enum: [one, two]}}}, b: {model: c:d, output_schema: {type: string}}}\n"
    "steps:\n  - {kind: router, name: r, router: a, branches: {one: [], two: [], three: []}}\n"
    "  - {kind: router, name: s, router: b, branches: {one: []}}\n",
    "skipped-step-that-is-asked": HEAD
    + "  - {name: more, agent: sorter, when: input.text == 'x', save: {label: output.label}}\n"
    + "  - {name: b, agent: sorter, input: '{{ steps.more.output != null ? steps.more.output.label : previous.label }}'}\n",
    "cache-that-saves-and-is-asked": HEAD
    + known(
        "{name: a, agent: sorter}",
        "    save: {label: output.label}\n    key: steps.sort.output.label\n    when: input.text != ''\n",
    )
    + "  - {name: b, agent: sorter, when: has(steps.known.cached) && steps.known.cached}\n",
    "cache-gives-what-its-step-gives": HEAD
    + known("{name: a, agent: sorter, input: '{{ input.text }}'}", "    ttl_s: 30d\n")
    + "  - {name: b, agent: sorter, input: '{{ steps.known.output.label }}', when: '!steps.known.cached'}\n",
    "cache-on-a-composite": HEAD
    + each("    cache: {ttl_s: 1h, key: steps.sort.output.label}\n")
    + "  - {name: b, agent: sorter, when: steps.each.cached || steps.each.failed > 0}\n",
    "cache-on-a-step-that-saves": HEAD
    + "  - {name: a, agent: sorter, cache: {}, save: {label: output.label}}\n",
    "budget-with-everything": HEAD
    + "budget: {total_cost_usd_limit: 0.5, total_tokens_limit: 10, requests_limit: 3, tool_calls_limit: 1,"
    " wall_time_s_limit: 30m, unknown_price: allow}\n",
    "budget-of-requests-and-answers-of-any-length": HEAD.replace("model_settings: {max_tokens: 9}, ", "")
    + "budget: {requests_limit: 3}\n",
    "budget-over-a-local-model": HEAD.replace(
        "{model: a:b, model_settings: {max_tokens: 9},", "{model: 'local:smollm2',"
    )
    + "budget: {total_tokens_limit: 1000}\n",
    "migrations-of-renamed-steps": HEAD
    + "  - {kind: loop, name: again, until: 'false', max_iterations: 2, steps: [{name: more, agent: sorter}]}\n"
    + "migrations:\n  - {from: label, to: sort}\n  - {from: first, to: sort}\n"
    + "  - {from: retry, to: again}\n  - {from: retry/ask, to: again/more}\n",
    "migrations-of-branches-states-and-moves": HEAD
    + "  - {kind: parallel, name: both, branches: {one: [{name: more, agent: sorter, thread: talk}]}}\n"
    + "  - kind: state_machine\n    name: machine\n    initial: open\n    final: [closed]\n    states:\n"
    + "      open: {steps: [{name: see, agent: sorter}], transitions: [{to: closed}]}\n"
    + "      closed: {steps: [{name: shut, agent: sorter}]}\n"
    + "  - kind: conditional\n    name: size\n    switch: input.text\n    branches: {big: [{name: more, agent: sorter}]}\n"
    + "    default: [{name: later, agent: sorter, config: {execution_mode: background}}]\n"
    + "migrations:\n  - {from: pair, to: both}\n  - {from: 'pair:left', to: 'both:one'}\n"
    + "  - {from: 'pair:left/first', to: 'both:one/more'}\n  - {from: 'machine:begun', to: 'machine:open'}\n"
    + "  - {from: 'size:huge', to: 'size:big'}\n  - {from: after, to: 'size:default/later'}\n",
    "schedules-of-all-forms": HEAD
    + 'schedule:\n  - {cron: "30 2 29 2 *", timezone: Europe/Berlin, input: {text: a}}\n'
    + '  - {cron: "0 * * * MON-FRI", name: hourly, input: {text: b, note: "{{ not a template }}"}, jitter: 5m,'
    + " catch_up: all, overlap: queue, queue: slow, priority: 2, context: {label: x}, metadata: {team: data}}\n",
    "search-with-everything": HEAD
    + search(
        "    goal: score > 3 && depth < 3 && candidate != null\n    beam_width: 2\n    input: '{{ steps.sort.output }}'\n"
    )
    + "  - {name: b, agent: sorter, when: steps.search.output.goal_reached, input: '{{ steps.search.output.score }}'}\n",
    "search-by-agents": 'version: "1"\nname: good\nbudget: {requests_limit: 9}\nagents:\n'
    "  thinker: {model: b:c, trust: true, instructions: 'Go on from {{ previous.candidate }}.', output_schema: {type: array,"
    " items: {type: object, required: [text], properties: {text: {type: string}}}}}\n"
    "  judge: {model: b:c}\nsteps:\n  - {kind: tree_search, name: s, propose: thinker, evaluate: judge, goal: candidate.text != ''}\n"
    "  - {name: b, agent: judge, input: '{{ steps.s.output.candidate.text }}'}\n",
    "divisions-that-have-a-value": HEAD
    + "  - {name: b, agent: sorter, when: '1.0 / 0.0 > 1.0 || 10 / 2 > 1 || 7 % 3 == 1 || 0 / 4 == 0'}\n",
    "tools-with-names-of-their-own": 'version: "1"\nname: good\n'
    "agents: {a: {model: b:c, tools: ['skills.crm:echo', 'skills.crm:plain']}, d: {model: b:c, tools: ['skills.crm:echo']}}\n"
    "steps: [{name: a, agent: a, input: hello}, {name: d, agent: d, input: '{{ steps.a.output }}'}]\n",
}
