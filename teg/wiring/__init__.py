"""The builders that `gateway.py` calls: each makes the parts of one subject and returns a frozen record of them.

What has to be closed is noted on the stack as it is opened, so it closes in the reverse of the order in `gateway.py`.
"""
