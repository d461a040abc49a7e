"""J and F by DAVIS' and YouTube-VOS' rules, exact and fast; checks and archives of results for challenge servers."""
