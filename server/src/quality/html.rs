//! A report as one page, which needs nothing else: tables as text, plots as SVG.

use std::fmt::Write as _;

use anyhow::Result;

use super::live::Window;
use super::plot::{Line, Picture, draw};
use super::report::{Report, Row, SetReport, StreamRow, render};

/// The page.
///
/// # Errors
/// A plot cannot be drawn.
pub(crate) fn page(report: &Report) -> Result<String> {
    let mut body = String::new();
    for set in &report.sets {
        for picture in pictures(report, set) {
            if let Some(svg) = draw(&picture)? {
                let _ = writeln!(body, "<figure>{svg}</figure>");
            }
        }
    }
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>askonce bench \
         quality</title>\n<style>\nbody {{ font-family: sans-serif; margin: 2em; }}\npre {{ overflow-x: auto; \
         background: #f6f6f6; padding: 1em; }}\nfigure {{ display: inline-block; margin: 0.5em; \
         }}\n</style>\n</head>\n<body>\n<h1>Hit quality</h1>\n{body}<pre>{}</pre>\n</body>\n</html>\n",
        escaped(&render(report))
    ))
}

fn pictures(report: &Report, set: &SetReport) -> Vec<Picture> {
    let title = |what: &str| {
        let (name, order, embedder) = (&set.set, set.order.as_str(), &set.embedder);
        format!("{what}: {name}, {order}, {embedder}")
    };
    let rows: Vec<&Row> = report
        .rows
        .iter()
        .filter(|row| row.set == set.set && row.order == set.order && row.embedder == set.embedder)
        .collect();
    let streams: Vec<&StreamRow> = report
        .streams
        .iter()
        .filter(|row| row.set == set.set && row.order == set.order && row.embedder == set.embedder)
        .collect();
    let curve = |row: &&Row| {
        let curve = row.curve.as_ref()?;
        let points = curve.points.iter();
        Some(Line {
            name: row.policy.clone(),
            points: points.map(|at| (at.hit_rate, at.precision)).collect(),
        })
    };
    let reliability = |row: &&Row| Line {
        name: row.policy.clone(),
        points: row
            .reliability
            .iter()
            .map(|bin| (bin.score, bin.right))
            .collect(),
    };
    let over_time = |of: fn(&Window) -> usize| {
        let line = move |row: &&StreamRow| {
            let mut seen = 0;
            let points = row.windows.iter().map(|window| {
                seen += window.requests;
                (
                    seen as f64,
                    of(window) as f64 / window.requests.max(1) as f64,
                )
            });
            Line {
                name: row.policy.clone(),
                points: points.collect(),
            }
        };
        streams.iter().map(line).collect()
    };
    vec![
        Picture {
            title: title("precision against hit rate"),
            x: "hits per request",
            y: "right hits per hit",
            lines: rows.iter().filter_map(curve).collect(),
            diagonal: false,
        },
        Picture {
            title: title("reliability"),
            x: "probability",
            y: "share right",
            lines: rows
                .iter()
                .filter(|row| !row.reliability.is_empty())
                .map(reliability)
                .collect(),
            diagonal: true,
        },
        Picture {
            title: title("hits by window"),
            x: "requests",
            y: "hits per request",
            lines: over_time(|window| window.right + window.wrong),
            diagonal: false,
        },
        Picture {
            title: title("wrong hits by window"),
            x: "requests",
            y: "wrong hits per request",
            lines: over_time(|window| window.wrong),
            diagonal: false,
        },
    ]
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
