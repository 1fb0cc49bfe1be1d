//! A trace as a page to look at, and as JSON for the trace viewers of browsers.
//!
//! The page is one file without any other: text, styles and pictures are in it, and it needs no
//! script. A long trace is drawn coarser, so the page stays small: what is shorter than a pixel is
//! joined with its neighbours.

use std::collections::HashMap;
use std::fmt::Write;

use super::explain::Bytes;
use super::graph::Graph;
use super::picture::{colour, escaped};
use super::run::Report;
use super::trace::{Span, Trace, What};

const WIDTH: f64 = 1100.0;
const LEFT: f64 = 70.0;
/// From left to right.
const PIXELS: u64 = 1030;
const LANE: f64 = 26.0;
const MEMORY_HEIGHT: f64 = 160.0;
const SLOWEST: usize = 15;
const FAMILIES: usize = 12;

impl Trace {
    /// The trace in the format of Chrome's trace viewer, which Perfetto reads too.
    #[must_use]
    pub fn chrome_json(&self, graph: &Graph<'_>) -> String {
        let micros = |ns: u64| ns as f64 / 1000.0;
        let mut events: Vec<serde_json::Value> = Vec::new();
        for span in &self.spans {
            events.push(serde_json::json!({
                "ph": "X",
                "pid": 1,
                "tid": span.thread,
                "name": name(graph, span),
                "cat": what(span.what),
                "ts": micros(span.begin_ns),
                "dur": micros(span.end_ns - span.begin_ns),
                "args": { "bytes": span.bytes },
            }));
        }
        for moment in &self.memory {
            events.push(serde_json::json!({
                "ph": "C",
                "pid": 1,
                "name": "memory",
                "ts": micros(moment.at_ns),
                "args": { "live": moment.live_bytes, "spilled": moment.spilled_bytes },
            }));
        }
        serde_json::json!({ "traceEvents": events, "displayTimeUnit": "ms" }).to_string()
    }
}

impl Report {
    /// One HTML file that shows what each thread did when, the memory over time, and what took
    /// longest. Empty if the run had no trace.
    #[must_use]
    pub fn page(&self, graph: &Graph<'_>, budget_bytes: Option<u64>) -> String {
        let Some(trace) = &self.trace else { return String::new() };
        let families = Families::of(trace, graph);
        let mut page = String::from(HEAD);
        self.facts(&mut page, trace, budget_bytes);
        page.push_str("<h2>Threads</h2>\n");
        families.legend(&mut page);
        timeline(&mut page, trace, graph, &families);
        page.push_str("<h2>Memory</h2>\n");
        memory(&mut page, trace, budget_bytes);
        page.push_str("<div class=\"two\"><div><h2>By family</h2>\n");
        families.table(&mut page, trace);
        page.push_str("</div><div><h2>Slowest</h2>\n");
        slowest(&mut page, trace, graph);
        page.push_str("</div></div>\n</body></html>\n");
        page
    }

    fn facts(&self, page: &mut String, trace: &Trace, budget_bytes: Option<u64>) {
        let rate = Bytes(scaled(self.bytes_read, 1_000_000_000, trace.end_ns));
        let busy: u64 = trace.spans.iter().map(|span| span.end_ns - span.begin_ns).sum();
        let lanes =
            trace.spans.iter().map(|span| span.thread).collect::<std::collections::BTreeSet<_>>();
        let use_percent = busy as f64 / (trace.end_ns.max(1) * lanes.len().max(1) as u64) as f64;
        let budget = budget_bytes.map_or("none".to_owned(), |bytes| Bytes(bytes).to_string());
        let facts = [
            ("time", time(trace.end_ns)),
            ("tasks", self.tasks.to_string()),
            ("steps", self.steps.to_string()),
            ("threads busy", format!("{:.0} %", 100.0 * use_percent)),
            ("read", format!("{} ({rate}/s)", Bytes(self.bytes_read))),
            ("peak memory", Bytes(self.peak_with_scratch_bytes).to_string()),
            ("predicted on one thread", Bytes(self.predicted_peak_bytes).to_string()),
            ("budget", budget),
            ("spilled", Bytes(self.bytes_spilled).to_string()),
            ("read back", Bytes(self.bytes_loaded).to_string()),
            ("from the cache", self.cache_hits.to_string()),
        ];
        page.push_str("<div class=\"facts\">\n");
        for (name, value) in facts {
            let _ = writeln!(page, "<div><b>{value}</b><span>{name}</span></div>");
        }
        page.push_str("</div>\n");
        if trace.left_out > 0 {
            let left_out = trace.left_out;
            let _ = writeln!(page, "<p>{left_out} entries were too many to keep.</p>");
        }
    }
}

/// Families by total time, each with a colour.
struct Families {
    // Name, nanoseconds, steps.
    list: Vec<(String, u64, u64)>,
    place: HashMap<String, usize>,
}

impl Families {
    fn of(trace: &Trace, graph: &Graph<'_>) -> Self {
        let mut sums: HashMap<String, (u64, u64)> = HashMap::new();
        for span in &trace.spans {
            let sum = sums.entry(family(graph, span)).or_default();
            sum.0 += span.end_ns - span.begin_ns;
            sum.1 += 1;
        }
        let mut list: Vec<(String, u64, u64)> =
            sums.into_iter().map(|(name, (ns, count))| (name, ns, count)).collect();
        list.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let place = list.iter().enumerate().map(|(at, family)| (family.0.clone(), at)).collect();
        Self { list, place }
    }

    fn colour(&self, name: &str) -> String {
        match name {
            "spill" => "#c33".to_owned(),
            "load" => "#e90".to_owned(),
            name => colour(self.place.get(name).copied().unwrap_or(0)),
        }
    }

    fn legend(&self, page: &mut String) {
        page.push_str("<p class=\"legend\">");
        for (name, _, _) in self.list.iter().take(FAMILIES) {
            let (colour, name) = (self.colour(name), escaped(name));
            let _ = write!(page, "<i style=\"background:{colour}\"></i>{name} ");
        }
        page.push_str("</p>\n");
    }

    fn table(&self, page: &mut String, trace: &Trace) {
        let all: u64 = self.list.iter().map(|family| family.1).sum();
        page.push_str("<table><tr><th>family<th>steps<th>time<th>each<th>share</tr>\n");
        for (name, ns, count) in self.list.iter().take(FAMILIES) {
            let share = 100.0 * *ns as f64 / all.max(1) as f64;
            let _ = writeln!(
                page,
                "<tr><td><i style=\"background:{}\"></i>{}<td>{count}<td>{}<td>{}<td>\
                 <div class=\"bar\" style=\"width:{share:.1}%\"></div>{share:.0} %</tr>",
                self.colour(name),
                escaped(name),
                time(*ns),
                time(ns / count.max(&1)),
            );
        }
        page.push_str("</table>\n");
        if self.list.len() > FAMILIES {
            let more = self.list.len() - FAMILIES;
            let _ = writeln!(page, "<p>and {more} more, {} in all</p>", time(trace.end_ns));
        }
    }
}

/// What each thread did when. Spans shorter than a third of a pixel join the one before them.
fn timeline(page: &mut String, trace: &Trace, graph: &Graph<'_>, families: &Families) {
    let mut threads: Vec<usize> = trace.spans.iter().map(|span| span.thread).collect();
    threads.sort_unstable();
    threads.dedup();
    let height = threads.len() as f64 * LANE + 24.0;
    let x = |ns: u64| LEFT + (WIDTH - LEFT) * ns as f64 / trace.end_ns.max(1) as f64;
    let _ = writeln!(page, "<svg viewBox=\"0 0 {WIDTH} {height}\">");
    axis(page, trace.end_ns, height - 20.0);
    for (lane, thread) in threads.iter().enumerate() {
        let y = lane as f64 * LANE;
        let _ = writeln!(
            page,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">thread {thread}</text>\
             <rect x=\"{LEFT}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"#f2f3f7\"/>",
            LEFT - 8.0,
            y + LANE * 0.65,
            y + 2.0,
            WIDTH - LEFT,
            LANE - 4.0,
        );
        let mut drawn_to = LEFT - 1.0;
        for span in trace.spans.iter().filter(|span| span.thread == *thread) {
            let (begin, end) = (x(span.begin_ns), x(span.end_ns));
            if end - drawn_to < 0.34 {
                continue;
            }
            let begin = begin.max(drawn_to);
            let _ = writeln!(
                page,
                "<rect x=\"{begin:.2}\" y=\"{}\" width=\"{:.2}\" height=\"{}\" fill=\"{}\">\
                 <title>{}: {}, {}</title></rect>",
                y + 2.0,
                (end - begin).max(0.34),
                LANE - 4.0,
                families.colour(&family(graph, span)),
                escaped(&name(graph, span)),
                time(span.end_ns - span.begin_ns),
                Bytes(span.bytes),
            );
            drawn_to = end;
        }
    }
    page.push_str("</svg>\n");
}

/// Live and spilled bytes over time, with the budget as a line.
fn memory(page: &mut String, trace: &Trace, budget_bytes: Option<u64>) {
    let live_most = trace.memory.iter().map(|moment| moment.live_bytes.max(moment.spilled_bytes));
    let most = live_most.max().unwrap_or(0).max(1);
    // A budget far above what was used would press the curve flat.
    let shown_budget = budget_bytes.filter(|budget| *budget <= most.saturating_mul(3));
    let top = shown_budget.unwrap_or(0).max(most);
    let top = top.saturating_add(top / 20).max(4);
    let y = |bytes: u64| MEMORY_HEIGHT - MEMORY_HEIGHT * bytes as f64 / top as f64;
    let _ = writeln!(page, "<svg viewBox=\"0 -4 {WIDTH} {}\">", MEMORY_HEIGHT + 28.0);
    axis(page, trace.end_ns, MEMORY_HEIGHT + 4.0);
    for quarter in 0..=4 {
        let bytes = top / 4 * quarter;
        let _ = writeln!(
            page,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"#e3e5ec\"/>\
             <text x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\">{3}</text>",
            y(bytes),
            LEFT - 8.0,
            y(bytes) + 4.0,
            Bytes(bytes),
        );
    }
    let curve = |page: &mut String, bytes: &dyn Fn(usize) -> u64| {
        // In each pixel the largest, so that no peak is lost.
        let mut pixels: Vec<(u64, u64)> = Vec::new();
        for (at, moment) in trace.memory.iter().enumerate() {
            let pixel = scaled(moment.at_ns, PIXELS, trace.end_ns);
            match pixels.last_mut() {
                Some(last) if last.0 == pixel => last.1 = last.1.max(bytes(at)),
                _ => pixels.push((pixel, bytes(at))),
            }
        }
        let mut before = y(0);
        let _ = write!(page, "M{LEFT} {before:.1}");
        for (pixel, bytes) in pixels {
            let at = LEFT + pixel as f64;
            let _ = write!(page, "L{at} {before:.1}L{at} {:.1}", y(bytes));
            before = y(bytes);
        }
        let _ = write!(page, "L{WIDTH} {before:.1}L{WIDTH} {:.1}Z", y(0));
    };
    page.push_str("<path fill=\"#36c\" fill-opacity=\"0.25\" stroke=\"#36c\" d=\"");
    curve(page, &|at| trace.memory[at].live_bytes);
    page.push_str("\"/>\n");
    if trace.memory.iter().any(|moment| moment.spilled_bytes > 0) {
        page.push_str("<path fill=\"none\" stroke=\"#c33\" stroke-dasharray=\"3 2\" d=\"");
        curve(page, &|at| trace.memory[at].spilled_bytes);
        page.push_str("\"/>\n");
    }
    if let Some(budget) = shown_budget {
        let _ = writeln!(
            page,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"#080\" \
             stroke-width=\"1.5\"/><text x=\"{WIDTH}\" y=\"{1:.1}\" text-anchor=\"end\" \
             fill=\"#080\">budget {2}</text>",
            y(budget),
            y(budget) + 13.0,
            Bytes(budget),
        );
    }
    page.push_str(
        "</svg>\n<p class=\"legend\"><i style=\"background:#36c\"></i>results in memory \
         <i style=\"background:#c33\"></i>results on the disk</p>\n",
    );
}

fn axis(page: &mut String, end_ns: u64, bottom: f64) {
    for tick in 0..=8_u64 {
        let at = LEFT + (WIDTH - LEFT) * tick as f64 / 8.0;
        let anchor = if tick == 8 { "end" } else { "middle" };
        let _ = writeln!(
            page,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"{bottom:.1}\" stroke=\"#e3e5ec\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            bottom + 14.0,
            time(end_ns / 8 * tick),
        );
    }
}

fn slowest(page: &mut String, trace: &Trace, graph: &Graph<'_>) {
    let mut spans: Vec<&Span> = trace.spans.iter().collect();
    spans.sort_by_key(|span| (std::cmp::Reverse(span.end_ns - span.begin_ns), span.begin_ns));
    page.push_str("<table><tr><th>task<th>time<th>result<th>thread<th>begun</tr>\n");
    for span in spans.into_iter().take(SLOWEST) {
        let _ = writeln!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
            escaped(&name(graph, span)),
            time(span.end_ns - span.begin_ns),
            Bytes(span.bytes),
            span.thread,
            time(span.begin_ns),
        );
    }
    page.push_str("</table>\n");
}

fn name(graph: &Graph<'_>, span: &Span) -> String {
    let key = graph.keys().get(span.task as usize).map_or(String::new(), ToString::to_string);
    match span.what {
        What::Run => key,
        other => format!("{} {key}", what(other)),
    }
}

fn family(graph: &Graph<'_>, span: &Span) -> String {
    match span.what {
        What::Run => {
            let key = graph.keys().get(span.task as usize);
            key.map_or(String::new(), |key| key.family().name().to_owned())
        }
        other => what(other).to_owned(),
    }
}

fn what(what: What) -> &'static str {
    match what {
        What::Run => "run",
        What::Spill => "spill",
        What::Load => "load",
    }
}

/// `value * times / by`, without overflow.
fn scaled(value: u64, times: u64, by: u64) -> u64 {
    let scaled = u128::from(value) * u128::from(times) / u128::from(by.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// A time as people read it.
fn time(ns: u64) -> String {
    let ns = ns as f64;
    match ns {
        _ if ns < 1e3 => format!("{ns:.0} ns"),
        _ if ns < 1e6 => format!("{:.1} us", ns / 1e3),
        _ if ns < 1e9 => format!("{:.1} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}

const HEAD: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Run</title><style>
body{font:14px/1.45 system-ui,sans-serif;color:#223;
max-width:1140px;margin:24px auto;padding:0 16px}
h1{font-size:20px}h2{font-size:15px;margin:26px 0 6px}
svg{width:100%;height:auto;display:block;font:11px sans-serif}svg text{fill:#667}
.facts{display:flex;flex-wrap:wrap;gap:10px}
.facts div{background:#f2f3f7;border-radius:6px;padding:8px 14px}
.facts b{display:block;font-size:16px}.facts span{color:#667;font-size:12px}
.legend{color:#556;font-size:12px;margin:4px 0}
i{display:inline-block;width:10px;height:10px;border-radius:2px;margin:0 5px 0 8px}
.two{display:grid;grid-template-columns:1fr 1fr;gap:28px}
table{border-collapse:collapse;width:100%;font-size:12px}
th{text-align:left;color:#667;font-weight:500}td,th{padding:2px 8px 2px 0;vertical-align:top}
tr+tr td{border-top:1px solid #eceef3}
.bar{background:#36c;height:4px;border-radius:2px;min-width:1px}
</style></head><body>
<h1>Run</h1>
";

#[cfg(test)]
mod tests {
    use crate::compute::{Family, Graph, RunOptions, TaskId, Value, run};

    #[test]
    fn the_page_needs_nothing_else_and_names_what_ran() {
        let mut graph = Graph::new();
        let family = Family::new("read <a>", &[20]);
        let value = |_: &[Value]| Ok(Value::new((), 1 << 20));
        let all: Vec<TaskId> =
            (0..20).map(|at| graph.task((&family, at), &[], 1 << 20, value)).collect();
        let total = graph.task("total", &all, 1 << 20, value);
        let options =
            RunOptions { trace: true, memory_bytes: Some(32 << 20), ..RunOptions::default() };
        let report = run(&graph, &[total], &options, &mut |_, _| Ok(())).unwrap();
        let page = report.page(&graph, options.memory_bytes);
        for part in ["read &lt;a&gt;[19]", "total", "budget 32.0 MiB", "Slowest", "<svg"] {
            assert!(page.contains(part), "{part} is not on the page");
        }
        assert!(!page.contains("<script") && !page.contains("http"));
        let trace = report.trace.as_ref().unwrap();
        let json: serde_json::Value = serde_json::from_str(&trace.chrome_json(&graph)).unwrap();
        let events = json["traceEvents"].as_array().unwrap();
        assert_eq!(events.iter().filter(|event| event["ph"] == "X").count(), 21);
        assert!(events.iter().all(|event| event["ts"].as_f64().unwrap() >= 0.0));
        let without = run(&graph, &[total], &RunOptions::default(), &mut |_, _| Ok(())).unwrap();
        assert_eq!(without.page(&graph, None), "");
    }
}
