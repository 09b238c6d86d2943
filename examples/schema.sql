create table author (
    id integer primary key,
    name text not null unique
);

create table book (
    title text primary key,
    author integer not null references author,
    published integer
);
