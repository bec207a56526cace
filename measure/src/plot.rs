//! Plots, as SVG: recall against speed for each set, and the cost of a lookup by size.

use std::fs;
use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::error::{MeasureError, Result};
use crate::growth::GrowthReport;
use crate::report::Report;
use crate::{Goal, SetReport};

const SIZE: (u32, u32) = (900, 560);

/// Draws what the report holds into the folder, which is made if it is not there, and tells the files.
///
/// # Errors
/// A file cannot be written.
pub fn draw(report: &Report, folder: &Path) -> std::result::Result<Vec<PathBuf>, MeasureError> {
    fs::create_dir_all(folder).map_err(|source| MeasureError::Write {
        path: folder.to_owned(),
        source,
    })?;
    let mut drawn = Vec::new();
    for set in &report.sets {
        let path = folder.join(format!("{}.svg", set.name.replace(' ', "-")));
        finish(&path, |area| recall_against_speed(set, area))?;
        drawn.push(path);
    }
    if let Some(growth) = &report.growth {
        let path = folder.join("growth.svg");
        finish(&path, |area| cost_by_size(growth, area))?;
        drawn.push(path);
    }
    Ok(drawn)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn finish(path: &Path, draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<()> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    let drawn = area
        .fill(&WHITE)
        .map_err(Into::into)
        .and_then(|()| draw(&area))
        .and_then(|()| area.present().map_err(Into::into));
    drawn.map_err(|error| MeasureError::Plot {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// Up is faster, right is more found.
fn recall_against_speed(set: &SetReport, area: &Area<'_>) -> Drawn {
    let points = |name: &str| -> Vec<(f64, f64)> {
        let report = set.contenders.iter().filter(|one| one.name == name);
        let mut points: Vec<(f64, f64)> = report
            .flat_map(|one| &one.sweep)
            .filter(|point| point.goal == Goal::Above08)
            .map(|point| (point.recall, 1e6 / point.cpu_us.max(1e-3)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    let all: Vec<(f64, f64)> = set
        .contenders
        .iter()
        .flat_map(|one| points(&one.name))
        .collect();
    let (slow, fast) = bounds(all.iter().map(|point| point.1));
    let least = all
        .iter()
        .map(|point| point.0)
        .fold(0.98, f64::min)
        .max(0.8);
    let mut chart = ChartBuilder::on(area)
        .caption(
            format!(
                "{}: neighbours >= 0.8 found, lookups a second of one core",
                set.name
            ),
            ("sans-serif", 18),
        )
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(76)
        .build_cartesian_2d(least..1.002, (slow..fast).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("share found")
        .y_desc("lookups a second")
        .draw()?;
    for (number, one) in set.contenders.iter().enumerate() {
        let color = Palette99::pick(number).to_rgba();
        let shown: Vec<(f64, f64)> = points(&one.name)
            .into_iter()
            .filter(|point| point.0 >= least)
            .collect();
        chart
            .draw_series(LineSeries::new(
                shown.iter().copied(),
                color.stroke_width(2),
            ))?
            .label(one.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        chart.draw_series(
            shown
                .iter()
                .map(|&point| Circle::new(point, 3, color.filled())),
        )?;
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .position(SeriesLabelPosition::LowerLeft)
        .draw()?;
    Ok(())
}

fn cost_by_size(growth: &GrowthReport, area: &Area<'_>) -> Drawn {
    let points: Vec<(f64, f64)> = growth
        .steps
        .iter()
        .map(|step| (step.rows as f64, step.cpu_us))
        .collect();
    let (few, many) = bounds(points.iter().map(|point| point.0));
    let (fast, slow) = bounds(points.iter().map(|point| point.1));
    let mut chart = ChartBuilder::on(area)
        .caption(
            format!(
                "microseconds of a lookup by rows, {} components",
                growth.dimension
            ),
            ("sans-serif", 18),
        )
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(76)
        .build_cartesian_2d((few..many).log_scale(), (fast..slow).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("rows")
        .y_desc("microseconds of processor time")
        .draw()?;
    let color = Palette99::pick(0).to_rgba();
    chart.draw_series(LineSeries::new(
        points.iter().copied(),
        color.stroke_width(2),
    ))?;
    chart.draw_series(
        points
            .iter()
            .map(|&point| Circle::new(point, 3, color.filled())),
    )?;
    Ok(())
}

/// The least and the largest, with room around, for a logarithmic axis.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) = values.fold((f64::INFINITY, 0.0f64), |(least, most), value| {
        (least.min(value), most.max(value))
    });
    if least.is_finite() && least > 0.0 {
        (least * 0.7, most * 1.4)
    } else {
        (0.1, 10.0)
    }
}
