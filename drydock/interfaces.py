"""Where a leased thing is, and how a command, a file in or a file out gets there.

An interface is data: a kind says where its resource is, and whoever wants something done there starts it through the
functions here. Nothing is ever put together for a shell on this machine; what goes over ssh is quoted for the one that
sshd starts on the other side.
"""

from typing import NamedTuple


class Local(NamedTuple):
    """On this machine."""

    folder: str = ""  #: where commands start, absolute; "": where their caller is


class Ssh(NamedTuple):
    """On a host that the system's ssh client reaches without asking anybody anything."""

    address: str
    port: int = 22
    user: str = ""  #: "": as ssh's own configuration says
    folder: str = ""  #: where commands start, absolute; "": where sshd puts them
    identity_file: str = ""  #: "": as ssh's own configuration says
    known_hosts: str = ""  #: the file of host keys that are trusted; "": the user's


Interface = Local | Ssh
