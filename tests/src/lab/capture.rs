//! Captures a LAN at its switch: every frame once, as it enters the switch from its sender; also as a pcap file.

use super::frames::{self, Frame, Port};
use super::sys::{BatchReceiver, LinkSwitch, enter, sleep_ms};
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Names a folder for captures under way, when they shall not be written to their place at once.
pub const SCRATCH_ENV: &str = "GWLAB_SCRATCH";
/// Frames read at once.
const BATCH: usize = 256;
/// Longest frame kept.
const SNAP: usize = 9216;
/// pcap with ns timestamps, little endian, version 2.4, Ethernet (pcap-savefile(5)).
const PCAP_MAGIC_NS: u32 = 0xa1b2_3c4d;

/// A frame that matters to the report.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it entered the switch (wall clock, ns).
    pub at_ns: u64,
    /// From whom.
    pub port: Port,
    /// What it is; never [`Frame::Other`].
    pub frame: Frame,
}

/// Everything a capture holds.
#[derive(Default, Debug)]
pub struct Log {
    /// Frames of interest in order.
    pub records: Vec<Record>,
    /// All frames.
    pub frames: u64,
    /// Frames the kernel dropped before we saw them: with any, nothing is proved.
    pub dropped: u64,
    /// Last raw ESP frame from each port (for the self-test's replay).
    pub last_esp: HashMap<Port, Vec<u8>>,
    /// What ended the capture early.
    pub error: Option<String>,
}

/// A capture, running.
pub struct Capture {
    stop: Arc<AtomicBool>,
    log: Arc<Mutex<Log>>,
    thread: Option<JoinHandle<()>>,
    written: PathBuf,
    /// The pcap file; complete once the capture is finished.
    pub file: PathBuf,
}

impl Capture {
    /// Starts capturing at the switch in `ns`; answers when the socket is open.
    pub fn start(ns: &'static str, file: &Path) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let log: Arc<Mutex<Log>> = Arc::default();
        // A guest writes to its memory while the scenario runs: its way to the host's disk stops everything else.
        let written = match std::env::var_os(SCRATCH_ENV) {
            Some(dir) => Path::new(&dir).join(format!("{ns}.pcap")),
            None => file.to_owned(),
        };
        let mut pcap = Pcap::create(&written)?;
        let links = LinkSwitch::open(ns)?;
        let (flag, shared) = (stop.clone(), log.clone());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let receiver = enter(ns).and_then(|()| BatchReceiver::packet(BATCH, SNAP));
            let mut receiver = match receiver {
                Ok(receiver) => {
                    let _ = ready.send(Ok(()));
                    receiver
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            if let Err(error) = capture(&mut receiver, &links, &mut pcap, &flag, &shared)
                && let Ok(mut log) = shared.lock()
            {
                log.error = Some(format!("{error:#}"));
            }
        });
        is_ready.recv().context("capture thread")??;
        Ok(Self { stop, log, thread: Some(thread), written, file: file.to_owned() })
    }

    /// Looks at what is captured so far.
    pub fn with<T>(&self, f: impl FnOnce(&Log) -> T) -> T {
        let log = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        f(&log)
    }

    /// Stops and hands everything out.
    pub fn finish(mut self) -> Log {
        self.halt();
        let mut log = std::mem::take(&mut *self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        if self.written != self.file {
            if let Err(error) = std::fs::copy(&self.written, &self.file) {
                log.error.get_or_insert_with(|| format!("copy to {}: {error}", self.file.display()));
            }
            let _ = std::fs::remove_file(&self.written);
        }
        log
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.halt();
    }
}

fn capture(receiver: &mut BatchReceiver, links: &LinkSwitch, pcap: &mut Pcap, stop: &AtomicBool, shared: &Mutex<Log>) -> Result<()> {
    let mut ports: HashMap<i32, Port> = HashMap::new();
    let mut failed = Ok(());
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        let mut records = Vec::new();
        let (mut seen, mut frames, mut esp) = (0, 0, None);
        receiver.receive(|r| {
            seen += 1;
            // Devices come and go with a gateway's "reboot", so an index is looked up when it is first seen.
            let port = *ports.entry(r.ifindex).or_insert_with(|| links.name_of(r.ifindex).map_or(Port::Switch, |n| Port::by_name(&n)));
            if port == Port::Switch {
                return;
            }
            frames += 1;
            if failed.is_ok() {
                failed = pcap.write(r.at_ns, r.bytes);
            }
            let frame = frames::parse(r.bytes);
            if matches!(frame, Frame::Esp { .. }) {
                esp = Some((port, r.bytes.to_vec()));
            }
            if frame != Frame::Other {
                records.push(Record { at_ns: r.at_ns, port, frame });
            }
        })?;
        let dropped = receiver.dropped()?;
        let mut log = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        log.records.append(&mut records);
        log.frames += frames;
        log.dropped += u64::from(dropped);
        log.last_esp.extend(esp);
        drop(log);
        std::mem::replace(&mut failed, Ok(()))?;
        if stopping && seen < BATCH {
            return pcap.flush();
        }
        // Batches cost the lab less than single frames; the timestamps are the kernel's.
        sleep_ms(10);
    }
}

struct Pcap(BufWriter<File>);

impl Pcap {
    fn create(file: &Path) -> Result<Self> {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(file).with_context(|| file.display().to_string())?);
        let mut header = Vec::new();
        header.extend(PCAP_MAGIC_NS.to_le_bytes());
        header.extend(2_u16.to_le_bytes());
        header.extend(4_u16.to_le_bytes());
        header.extend([0; 8]);
        header.extend((SNAP as u32).to_le_bytes());
        header.extend(1_u32.to_le_bytes());
        out.write_all(&header)?;
        Ok(Self(out))
    }

    fn write(&mut self, at_ns: u64, frame: &[u8]) -> Result<()> {
        for word in [at_ns / 1_000_000_000, at_ns % 1_000_000_000, frame.len() as u64, frame.len() as u64] {
            self.0.write_all(&(word as u32).to_le_bytes())?;
        }
        self.0.write_all(frame)?;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.0.flush()?;
        Ok(())
    }
}
