"""J and F by the rules of DAVIS and YouTube-VOS; checks and archives of results for challenge servers."""
