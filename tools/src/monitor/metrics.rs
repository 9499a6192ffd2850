//! The figures as OpenMetrics text, for Prometheus and its kin, on a port of this machine.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::model::Model;
use crate::error::{Error, Result};
use crate::report::Histogram;

/// The media type of the text, as OpenMetrics 1.0 asks.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Most bytes of a request's head.
const MOST_HEAD: usize = 8192;

/// How long one asker may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The model, as screen and port share it.
pub type Shared = Arc<Mutex<Model>>;

/// Serves the figures of `model` on `address` until the command ends; returns where it listens, which tells the port when 0 was asked.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve(address: SocketAddr, model: Shared) -> Result<SocketAddr> {
    let refuse = |cause: io::Error| {
        Error::refused(
            format!("cannot serve metrics on {address}"),
            cause,
            "give another address or port: 127.0.0.1:9464; port 0 takes a free one",
        )
    };
    let listener = TcpListener::bind(address).map_err(refuse)?;
    let bound = listener.local_addr().map_err(refuse)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // An asker that goes away early is its own affair.
            let _gone = answer(stream, &model);
        }
    });
    Ok(bound)
}

/// Answers one request.
fn answer(mut stream: TcpStream, model: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = read_head(&mut stream)?;
    let mut words = head.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, kind, body) = match (method, path.split('?').next()) {
        ("GET" | "HEAD", Some("/metrics")) => {
            let text = render(model).unwrap_or_default();
            ("200 OK", CONTENT_TYPE, text)
        }
        ("GET" | "HEAD", _) => {
            ("404 Not Found", "text/plain", "the figures are at /metrics\n".into())
        }
        _ => ("405 Method Not Allowed", "text/plain", "ask with GET\n".into()),
    };
    let length = body.len();
    let body = if method == "HEAD" { "" } else { &body };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// The head of a request, up to its empty line.
fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut piece)?;
        if count == 0 || head.len() + count > MOST_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.extend(&piece[..count]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// The figures as text.
///
/// # Errors
/// None that a string as the target can cause.
pub fn render(model: &Shared) -> std::result::Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("bulkhead");
    registry.register_collector(Box::new(Figures(model.clone())));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

struct Figures(Shared);

impl fmt::Debug for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Figures")
    }
}

type Labels = Vec<(&'static str, String)>;

/// The values of one family, each under its labels.
type Values<N> = Vec<(Labels, N)>;

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let model = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        system(&model, &mut encoder)?;
        partitions(&model, &mut encoder)?;
        latencies(&model, &mut encoder)
    }
}

fn system(model: &Model, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let (system, board) = model
        .manifest
        .as_ref()
        .map(|manifest| (manifest.system.clone(), manifest.board.clone()))
        .unwrap_or_default();
    let info = Info::new(vec![
        ("build", model.build.clone()),
        ("table", model.digest.clone()),
        ("system", system),
        ("board", board),
    ]);
    // Until the system spoke nobody knows.
    if !model.build.is_empty() {
        info.encode(encoder.encode_descriptor("image", "What runs", None, info.metric_type())?)?;
    }
    let seconds = model.seconds().map(|seconds| (Labels::new(), seconds));
    gauge(
        encoder,
        "board_time",
        "The board's own clock when it was last heard",
        Some(&Unit::Seconds),
        &seconds.into_iter().collect(),
    )?;
    let ended = vec![(Labels::new(), i64::from(model.ended))];
    gauge(encoder, "ended", "1 once the system came to its orderly end", None, &ended)?;
    let one = |value| vec![(Labels::new(), value)];
    counter(
        encoder,
        "log_garbled_runs",
        "Runs of bytes on the line that were neither packet nor text",
        &one(model.garbled),
    )?;
    counter(
        encoder,
        "log_dropped_messages",
        "Diagnostics that the hypervisor dropped",
        &one(model.dropped),
    )?;
    let incidents = model.incidents.iter().map(|(offence, count)| {
        let labels = vec![
            ("incident", offence.incident.clone()),
            ("subject", offence.subject.clone()),
            ("offender", offence.offender.clone()),
        ];
        (labels, *count)
    });
    counter(encoder, "health_events", "What went wrong with time", &incidents.collect())
}

fn partitions(model: &Model, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let each = |figure: &dyn Fn(&super::model::Partition) -> Option<u64>| -> Values<u64> {
        let values = model.partitions.iter();
        values.filter_map(|(id, partition)| Some((named(model, *id), figure(partition)?))).collect()
    };
    let fates = model.partitions.iter().map(|(id, partition)| {
        let mut labels = named(model, *id);
        labels.push(("fate", partition.fate()));
        (labels, 1_i64)
    });
    gauge(encoder, "partition_fate", "How the partition stands; always 1", None, &fates.collect())?;
    counter(
        encoder,
        "partition_exits",
        "Exits; absent where they are told at the end only",
        &each(&|p| p.exits()),
    )?;
    counter(
        encoder,
        "partition_denied_accesses",
        "Accesses that the table does not grant",
        &each(&|p| p.denied()),
    )?;
    counter(
        encoder,
        "partition_windows",
        "Windows that it was given",
        &each(&|p| p.windows().map(|w| w.0)),
    )?;
    counter(
        encoder,
        "partition_late_windows",
        "Windows that were late or missed",
        &each(&|p| p.windows().map(|w| w.1)),
    )?;
    let ticks = Unit::Other("ticks".to_string());
    let lateness = each(&|p| p.lateness_max());
    gauge(
        encoder,
        "partition_window_lateness_max",
        "Largest lateness of a window's entry; told at the end",
        Some(&ticks),
        &signed(lateness),
    )
}

/// What the guests measured: a family for each figure and unit.
fn latencies(model: &Model, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    type Figure = (&'static str, &'static str, fn(&Histogram) -> u64);
    const FIGURES: [Figure; 4] = [
        ("latency_min", "Smallest sample of a measurement", |h| h.min),
        ("latency_median", "Median of a measurement", |h| h.median),
        ("latency_p99_9", "99.9 % of the samples are not above it", |h| h.p99_9),
        ("latency_max", "Largest sample of a measurement", |h| h.max),
    ];
    let all: Vec<(Labels, &Histogram)> = model
        .partitions
        .iter()
        .flat_map(|(id, partition)| {
            partition.measured.histograms.iter().map(|histogram| (*id, histogram))
        })
        .map(|(id, histogram)| {
            let mut labels = named(model, id);
            labels.push(("measured", histogram.name.clone()));
            (labels, histogram)
        })
        .collect();
    let samples = all.iter().map(|(labels, histogram)| (labels.clone(), histogram.count));
    gauge(
        encoder,
        "latency_samples",
        "Samples of a measurement",
        None,
        &signed(samples.collect()),
    )?;
    let mut units: Vec<String> = all.iter().map(|(_, histogram)| unit(histogram)).collect();
    units.sort();
    units.dedup();
    for name in units {
        let of_unit = all.iter().filter(|(_, histogram)| unit(histogram) == name);
        for (family, help, figure) in FIGURES {
            let values =
                of_unit.clone().map(|(labels, histogram)| (labels.clone(), figure(histogram)));
            gauge(
                encoder,
                family,
                help,
                Some(&Unit::Other(name.clone())),
                &signed(values.collect()),
            )?;
        }
    }
    Ok(())
}

/// A guest's unit as a part of a metric's name.
fn unit(histogram: &Histogram) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    histogram.unit.chars().map(word).collect()
}

fn named(model: &Model, id: u16) -> Labels {
    vec![("partition", model.name(id))]
}

/// A gauge's number is signed; one that does not fit is shown as the largest.
fn signed(values: Values<u64>) -> Values<i64> {
    values
        .into_iter()
        .map(|(labels, value)| (labels, i64::try_from(value).unwrap_or(i64::MAX)))
        .collect()
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: &Values<u64>,
) -> fmt::Result {
    family(
        encoder,
        name,
        help,
        None,
        values.iter().map(|(labels, value)| (labels, ConstCounter::new(*value))),
    )
}

fn gauge<N>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    values: &Values<N>,
) -> fmt::Result
where
    N: Copy,
    ConstGauge<N>: EncodeMetric,
{
    family(
        encoder,
        name,
        help,
        unit,
        values.iter().map(|(labels, value)| (labels, ConstGauge::new(*value))),
    )
}

/// A family without values is left out.
fn family<'v, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    values: impl Iterator<Item = (&'v Labels, M)>,
) -> fmt::Result {
    let mut values = values.peekable();
    let Some((_, first)) = values.peek() else { return Ok(()) };
    let mut metric = encoder.encode_descriptor(name, help, unit, first.metric_type())?;
    for (labels, value) in values {
        if labels.is_empty() {
            value.encode(metric.encode_family(&Labels::new())?)?;
        } else {
            value.encode(metric.encode_family(labels)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::monitor::model::tests::model;

    /// One family as a reader of OpenMetrics sees it.
    #[derive(Debug, Default)]
    struct Family {
        kind: String,
        unit: String,
        samples: BTreeMap<String, f64>,
    }

    /// Reads OpenMetrics text by its rules; panics with the line that breaks one.
    fn parse(text: &str) -> BTreeMap<String, Family> {
        let body = text.strip_suffix("# EOF\n").expect("ends with # EOF");
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut current = String::new();
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# ") {
                let mut words = rest.splitn(3, ' ');
                let (what, name) = (words.next().unwrap(), words.next().unwrap());
                let value = words.next().unwrap_or_default().to_string();
                if name != current {
                    assert!(!families.contains_key(name), "{line}: the family is not in one piece");
                    current = name.to_string();
                }
                let family = families.entry(current.clone()).or_default();
                assert!(family.samples.is_empty(), "{line}: stands behind samples");
                match what {
                    "TYPE" => family.kind = value,
                    "UNIT" => {
                        assert!(
                            name.ends_with(&format!("_{value}")),
                            "{line}: the unit is no suffix"
                        );
                        family.unit = value;
                    }
                    "HELP" => {}
                    _ => panic!("{line}: no such comment"),
                }
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let family = families.get_mut(&current).unwrap();
            let suffix = name
                .strip_prefix(current.as_str())
                .unwrap_or_else(|| panic!("{line}: is of another family"));
            let right = match family.kind.as_str() {
                "counter" => "_total",
                "info" => "_info",
                "gauge" => "",
                kind => panic!("{line}: type {kind}"),
            };
            assert_eq!(suffix, right, "{line}");
            check_labels(&series[name.len()..], line);
            let before = family.samples.insert(series.to_string(), value.parse().unwrap());
            assert!(before.is_none(), "{line}: is there twice");
        }
        families
    }

    /// `{name="value",...}` with quotes, backslashes and line ends escaped in the values.
    fn check_labels(labels: &str, line: &str) {
        if labels.is_empty() {
            return;
        }
        let inner = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).expect(line);
        let mut rest = inner;
        while !rest.is_empty() {
            let (name, value) = rest.split_once("=\"").expect(line);
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
            let mut end = 0;
            let bytes = value.as_bytes();
            while bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            rest = value[end + 1..].trim_start_matches(',');
        }
    }

    #[test]
    fn the_text_keeps_the_rules_of_the_format() {
        let text = render(&Arc::new(Mutex::new(model()))).unwrap();
        let families = parse(&text);
        let sample =
            |family: &str, series: &str| families[family].samples[&format!("{family}{series}")];
        let plc = r#"{partition="plc \"two\""}"#;
        assert_eq!(sample("bulkhead_partition_exits", &format!("_total{plc}")), 834.0);
        assert_eq!(sample("bulkhead_partition_late_windows", &format!("_total{plc}")), 1.0);
        assert_eq!(
            families["bulkhead_partition_exits"].samples.len(),
            1,
            "motion's are not known yet"
        );
        assert_eq!(families["bulkhead_image"].samples.len(), 1);
        assert_eq!(sample("bulkhead_board_time_seconds", ""), 0.5);
        let wakeup = r#"{partition="motion",measured="wakeup"}"#;
        assert_eq!(sample("bulkhead_latency_max_ticks", wakeup), 4.0);
        assert_eq!(families["bulkhead_latency_max_ticks"].unit, "ticks");
        assert_eq!(sample("bulkhead_log_garbled_runs", "_total"), 1.0);
    }

    #[test]
    fn a_model_of_nothing_is_good_text_too() {
        let families = parse(&render(&Arc::new(Mutex::new(Model::new(None)))).unwrap());
        assert!(!families.contains_key("bulkhead_image"), "nobody knows yet what runs");
    }

    fn ask(request: &[u8]) -> String {
        let shared = Arc::new(Mutex::new(model()));
        let address = serve("127.0.0.1:0".parse().unwrap(), shared).unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn the_port_answers_by_the_rules_of_http() {
        let answer = ask(b"GET /metrics HTTP/1.1\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains(CONTENT_TYPE), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        parse(body);
        assert!(ask(b"HEAD /metrics HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"));
        assert!(ask(b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(ask(b"POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
    }

    #[test]
    fn an_address_that_is_not_ours_is_refused() {
        let shared = Arc::new(Mutex::new(Model::new(None)));
        let error = serve("203.0.113.1:1".parse().unwrap(), shared).unwrap_err().to_string();
        assert!(error.contains("203.0.113.1:1") && error.contains("remedy"), "{error}");
    }
}
