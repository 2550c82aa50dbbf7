//! Every step that anybody can take, for Stateright.
//!
//! *In*: rules and a bound. *Out*: the graph of all states within it. *Never*: chance: what may happen is tried.

use stateright::{Model, Property};

use super::properties;
use super::rules::{Bound, Rules};
use super::world::{TABLES, Target, World};
use super::writer::{Phase, Reply, Writer};

/// The commit protocol under some rules, to a bound.
#[derive(Clone, Debug)]
pub(crate) struct Commits {
    pub rules: Rules,
    pub bound: Bound,
}

/// Numbers are those of writers, partitions, tables, and requests under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A writer starts: reads the plan and the newest checkpoint. While the other is up this is a fault.
    Start(usize),
    /// It reads the next table, or all of them (`Bound::slow_reads`); after the last it is up, and sweeps.
    Read(usize),
    /// It takes the next row of a partition.
    Tick {
        writer: usize,
        partition: usize,
    },
    /// It begins a round. What a round needs next is requested at once: a request that is not yet carried out is no
    /// different from one that is not yet sent.
    Round(usize),
    /// A catalog or store carries out a request, or refuses it. A sender that still waits gets the reply.
    Deliver(usize),
    /// The sender stops waiting. The request may land before, after, or never. (Fault)
    Timeout(usize),
    Reload(usize),
    Checkpoint(usize),
    /// (Fault)
    Crash(usize),
    /// (Foreign) A snapshot with the same rows and without our summary.
    Compact(usize),
    /// (Foreign) An older snapshot is the head again; the properties stay.
    Rollback(usize),
    /// (Foreign) Old metadata are restored, properties too.
    Restore(usize),
    /// (Foreign) All snapshots but the head are gone.
    Expire(usize),
    /// (Foreign) The newest checkpoint is damaged: it does not count as one. Once.
    Damage,
    /// (Foreign) Writers that start from now on have the second contract.
    Contract,
}

impl Commits {
    fn own_steps(&self, world: &World, w: usize, steps: &mut Vec<Step>) {
        let writer = &world.writers[w];
        match writer.phase {
            Phase::Down | Phase::Stopped(_) => return,
            Phase::Reading(_) => steps.push(Step::Read(w)),
            Phase::Up => {
                for partition in 0..2 {
                    if writer.may_read(&self.rules, &self.bound, partition) {
                        steps.push(Step::Tick { writer: w, partition });
                    }
                }
                if writer.may_begin_round() {
                    steps.push(Step::Round(w));
                }
                match writer.reply {
                    Reply::Unknown => steps.push(Step::Reload(w)),
                    Reply::Awaited if world.faults > 0 => steps.push(Step::Timeout(w)),
                    _ => {}
                }
                if writer.may_checkpoint(&self.rules, world) {
                    steps.push(Step::Checkpoint(w));
                }
            }
        }
        if world.faults > 0 {
            steps.push(Step::Crash(w));
        }
    }

    fn foreign_steps(&self, world: &World, steps: &mut Vec<Step>) {
        for t in TABLES {
            let table = &world.tables[t];
            let Some(head) = table.snapshot(table.head) else { continue };
            if head.summary.is_some() {
                steps.push(Step::Compact(t));
            }
            if table.snapshot(head.parent).is_some() {
                steps.push(Step::Rollback(t));
            }
            if head.parent == 0 || table.snapshot(head.parent).is_some() {
                steps.push(Step::Restore(t));
            }
            if table.snapshots.len() > 1 {
                steps.push(Step::Expire(t));
            }
        }
        if !world.checkpoints.is_empty() && !world.damaged {
            steps.push(Step::Damage);
        }
        if world.contract == 0 {
            steps.push(Step::Contract);
        }
    }

    fn act(&self, world: &mut World, step: Step) {
        match step {
            Step::Start(w) => {
                world.starts += 1;
                if world.writers.iter().any(|w| w.phase != Phase::Down) {
                    world.faults -= 1;
                }
                world.writers[w] = Writer::start(world);
            }
            Step::Read(w) => self.read(world, w),
            Step::Tick { writer, partition } => world.writers[writer].tick(&self.bound, partition),
            Step::Round(w) => {
                world.writers[w].begin_round(&self.rules, &self.bound);
                self.send(world, w);
            }
            Step::Deliver(i) => self.deliver(world, i),
            Step::Timeout(w) => {
                world.faults -= 1;
                world.writers[w].reply = Reply::Unknown;
                forget(world, w);
            }
            Step::Reload(w) => {
                let mut writer = world.writers[w].clone();
                writer.reload(&self.rules, world);
                world.writers[w] = writer;
                self.send(world, w);
            }
            Step::Checkpoint(w) => self.checkpoint(world, w),
            Step::Crash(w) => {
                world.faults -= 1;
                world.writers[w] = Writer::default();
                forget(world, w);
            }
            _ => foreign(world, step),
        }
    }

    fn read(&self, world: &mut World, w: usize) {
        let mut writer = world.writers[w].clone();
        while let Phase::Reading(t) = writer.phase
            && t < TABLES.len()
        {
            writer.read_table(&self.rules, t, &world.tables[t]);
            if self.bound.slow_reads {
                break;
            }
        }
        let all = writer.phase == Phase::Reading(TABLES.len());
        if all {
            writer.recovered(&self.rules);
        }
        world.writers[w] = writer;
        if all {
            world.sweep(&self.rules);
            self.send(world, w);
        }
    }

    /// Requests what the round of this writer needs next, if there is one and nothing is asked.
    fn send(&self, world: &mut World, w: usize) {
        let writer = &mut world.writers[w];
        if writer.reply == Reply::None && writer.round.is_some() {
            let request = writer.request(&self.rules, w);
            world.requests.extend(request);
            world.requests.sort();
        }
    }

    fn deliver(&self, world: &mut World, i: usize) {
        let request = world.requests.remove(i);
        let lands = world.lands(&self.rules, &request);
        if lands {
            world.carry_out(&self.rules, &request);
        }
        if request.awaited {
            let writer = &mut world.writers[request.from];
            match request.target {
                _ if !lands => writer.reply = Reply::Unknown,
                Target::Plan => writer.done(&self.rules),
                Target::Table(t) => writer.committed(&self.rules, t, &world.tables[t]),
            }
            self.send(world, request.from);
        }
    }

    fn checkpoint(&self, world: &mut World, w: usize) {
        let checkpoint = world.writers[w].checkpoint();
        world.checkpoints.push(checkpoint);
        if world.checkpoints.len() > 2 {
            world.checkpoints.remove(0);
        }
        let needed = if self.rules.keep_log {
            // With one checkpoint the beginning is the other one.
            if world.checkpoints.len() == 2 { world.checkpoints[0].v } else { [0, 0] }
        } else {
            checkpoint.v
        };
        for (start, needed) in world.log_start.iter_mut().zip(needed) {
            *start = needed.max(*start);
        }
    }
}

/// Nobody waits for the requests of this writer any more.
fn forget(world: &mut World, w: usize) {
    for request in &mut world.requests {
        if request.from == w {
            request.awaited = false;
        }
    }
    world.requests.sort();
}

fn foreign(world: &mut World, step: Step) {
    world.faults -= 1;
    world.foreign -= 1;
    match step {
        Step::Compact(t) => {
            let table = &mut world.tables[t];
            let (rows, seq) = (table.rows(), table.made + 1);
            let twice = table.snapshot(table.head).is_some_and(|s| s.twice);
            table.add(0, seq, None);
            if let Some(last) = table.snapshots.last_mut() {
                (last.rows, last.twice) = (rows, twice);
            }
        }
        Step::Rollback(t) | Step::Restore(t) => {
            world.rolled_back = true;
            let table = &mut world.tables[t];
            let parent = table.snapshot(table.head).map_or(0, |s| s.parent);
            table.back_to(parent);
            if matches!(step, Step::Restore(_)) {
                table.property = table.snapshot(parent).and_then(|s| s.property);
            }
        }
        Step::Expire(t) => {
            let head = world.tables[t].head;
            world.tables[t].snapshots.retain(|s| s.id == head);
        }
        Step::Damage => {
            world.checkpoints.pop();
            world.damaged = true;
        }
        _ => world.contract = 1,
    }
}

impl Model for Commits {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World { faults: self.bound.faults, foreign: self.bound.foreign, ..World::default() }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        let stopped = world.writers.iter().any(|w| matches!(w.phase, Phase::Stopped(_)));
        let free = world.writers.iter().all(|w| w.phase == Phase::Down);
        if !stopped
            && (free || world.faults > 0)
            && let Some(w) = world.writers.iter().position(|w| w.phase == Phase::Down)
        {
            steps.push(Step::Start(w));
        }
        for w in 0..2 {
            self.own_steps(world, w, steps);
        }
        for (i, request) in world.requests.iter().enumerate() {
            // A zombie that is refused changes nothing.
            if request.awaited || world.lands(&self.rules, request) {
                steps.push(Step::Deliver(i));
            }
        }
        if world.faults > 0 && world.foreign > 0 {
            self.foreign_steps(world, steps);
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        self.act(&mut next, step);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
