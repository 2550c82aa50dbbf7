//! Tests of decode: what a user would notice, a second decoder to compare with, hostile input, speed.

mod again;
mod cloud;
mod debezium;
mod events;
mod fuzz;
mod helper;
mod hostile;
mod reference;
mod speed;
mod tables;
